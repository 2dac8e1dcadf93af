//! Where decoding stands, so that an error can name the field, and [`fields!`], with which every message says of each
//! of its fields whether it is honoured, ignored or refused. What the fields mean is left to the other modules.

use std::fmt;
use std::io;

/// Reads a file that a configuration names.
pub(crate) type ReadFile<'f> = dyn Fn(&str) -> io::Result<Vec<u8>> + 'f;

/// A resource that cannot be obeyed, with the field that is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Kind and name, such as ``listener `http` ``; empty when the resource could not even be read.
    pub resource: String,
    /// The field, such as `filter_chains[0].filters[0].typed_config.http_filters[1]`; empty for the whole resource.
    pub path: String,
    /// What is wrong with it, and what was found.
    pub problem: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.resource, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for DecodeError {}

/// The answer of everything that decodes.
pub(crate) type Decoded<T> = Result<T, DecodeError>;

/// All items of a list, without room to spare: there are thousands of lists, most of them of one item.
pub(crate) fn all<T>(items: impl Iterator<Item = Decoded<T>>) -> Decoded<Vec<T>> {
    let mut all = items.collect::<Decoded<Vec<T>>>()?;
    all.shrink_to_fit();
    Ok(all)
}

/// A field of the resource that is being decoded: a path that grows on the stack and costs nothing unless it is shown.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
    files: Option<&'a ReadFile<'a>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Resource(&'a str, &'a str),
    Field(&'a str),
    Item(&'a str, usize),
    Key(&'a str, &'a str),
}

impl<'a> Place<'a> {
    /// The whole of a resource; `files` reads the files that it names, where that is allowed.
    pub(crate) fn resource(kind: &'a str, name: &'a str, files: Option<&'a ReadFile<'a>>) -> Self {
        Self { parent: None, step: Step::Resource(kind, name), files }
    }

    /// A field of this one.
    pub(crate) fn field<'b>(&'b self, name: &'b str) -> Place<'b> {
        self.then(Step::Field(name))
    }

    /// An element of the repeated field `name`.
    pub(crate) fn item<'b>(&'b self, name: &'b str, index: usize) -> Place<'b> {
        self.then(Step::Item(name, index))
    }

    /// An entry of the map `name`.
    pub(crate) fn key<'b>(&'b self, name: &'b str, key: &'b str) -> Place<'b> {
        self.then(Step::Key(name, key))
    }

    fn then<'b>(&'b self, step: Step<'b>) -> Place<'b> {
        Place { parent: Some(self), step, files: self.files }
    }

    /// Whether files that the configuration names are read here.
    pub(crate) fn reads_files(&self) -> bool {
        self.files.is_some()
    }

    /// Reads a file that this field names.
    pub(crate) fn read_file(&self, path: &str) -> Decoded<Vec<u8>> {
        match self.files {
            None => Err(self.error(format_args!("file `{path}` cannot be read in a resource sent over xDS"))),
            Some(read) => read(path).map_err(|e| self.error(format_args!("file `{path}`: {e}"))),
        }
    }

    /// That `problem` is here.
    pub(crate) fn error(&self, problem: impl fmt::Display) -> DecodeError {
        let mut steps = Vec::new();
        let mut resource = String::new();
        let mut at = Some(self);
        while let Some(place) = at {
            match place.step {
                Step::Resource(kind, name) => resource = format!("{kind} `{name}`"),
                Step::Field(name) => steps.push(name.to_owned()),
                Step::Item(name, index) => steps.push(format!("{name}[{index}]")),
                Step::Key(name, key) => steps.push(format!("{name}[{key:?}]")),
            }
            at = place.parent;
        }
        steps.reverse();
        DecodeError { resource, path: steps.join("."), problem: problem.to_string() }
    }

    /// That `what` was found here and cannot be obeyed.
    pub(crate) fn unsupported(&self, what: impl fmt::Display) -> DecodeError {
        self.error(format_args!("{what} is not supported"))
    }

    /// Fails unless the field `name` of this message is unset.
    pub(crate) fn refuse<T: Default + PartialEq + fmt::Debug>(&self, name: &str, value: &T) -> Decoded<()> {
        if *value == T::default() {
            return Ok(());
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        Err(self.field(name).error(format_args!("this field is not supported (found {})", shown(value))))
    }
}

/// A value for an error message: short, whatever it is.
fn shown(value: &dyn fmt::Debug) -> String {
    const LONGEST: usize = 120;
    let text = format!("{value:?}");
    let text = text.strip_prefix("Some(").and_then(|t| t.strip_suffix(')')).unwrap_or(&text);
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// Takes a message apart. Every field has to be named: honoured ones become variables, checked ones are looked at by a
/// function of their own, ignored ones change nothing that users could tell or rely on, refused ones fail unless they
/// are unset.
macro_rules! fields {
    ($place:expr, $message:expr => $type:path {
        honoured: $($honoured:ident),*;
        $(checked: $($checked:ident),*;)?
        ignored: $($ignored:ident),*;
        refused: $($refused:ident),*;
    }) => {
        let $type { $($honoured,)* $($($checked: _,)*)? $($ignored: _,)* $($refused,)* } = $message;
        $($place.refuse(stringify!($refused), $refused)?;)*
    };
}
pub(crate) use fields;
