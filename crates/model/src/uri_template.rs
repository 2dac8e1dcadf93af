//! URI templates: which paths they take, and what they make of one (`envoy.path.match.uri_template.uri_template_matcher`,
//! `envoy.path.rewrite.uri_template.uri_template_rewriter`). `*` is one segment, `**` any number of them and comes last,
//! `{name}` and `{name=pattern}` are remembered.

use regex::Regex;
use std::collections::BTreeSet;
use std::fmt;

/// What may stand in a segment (RFC 3986, `pchar`), without what a template uses itself.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+";
/// The same with slashes.
const SEGMENTS: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*";
/// Variables in one template.
const MOST_VARIABLES: usize = 5;
/// Characters in a variable's name.
const LONGEST_NAME: usize = 16;

/// A template that paths are matched with.
#[derive(Debug, Clone)]
pub struct UriTemplate {
    source: String,
    regex: Regex,
}

impl PartialEq for UriTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// What a matched path is replaced by.
#[derive(Debug, Clone, PartialEq)]
pub struct UriRewrite {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(String),
    Variable(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplateError(String);

impl fmt::Display for UriTemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UriTemplateError {}

/// A template's regular expression while it is read.
#[derive(Default)]
struct Reader {
    regex: String,
    variables: BTreeSet<String>,
    /// `**` was there.
    is_open: bool,
}

impl UriTemplate {
    /// Reads a template.
    pub fn parse(source: &str) -> Result<Self, UriTemplateError> {
        let fail = |why: &str| UriTemplateError(format!("URI template `{source}`: {why}"));
        let rest = source.strip_prefix('/').ok_or_else(|| fail("it has to begin with a slash"))?;
        if !source.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(fail("it has characters that no path has"));
        }
        let mut reader = Reader::default();
        reader.read(rest, true).map_err(|why| fail(&why))?;
        let regex = Regex::new(&format!("^/{}$", reader.regex)).map_err(|e| fail(&e.to_string()))?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it takes a path, given without its query.
    pub fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// Whether every variable of `rewrite` is one of its own.
    pub fn knows(&self, rewrite: &UriRewrite) -> bool {
        let names: Vec<&str> = self.regex.capture_names().flatten().collect();
        rewrite.parts.iter().all(|part| match part {
            Part::Literal(_) => true,
            Part::Variable(name) => names.contains(&name.as_str()),
        })
    }

    /// What `rewrite` makes of a path that it takes.
    pub fn rewrite(&self, rewrite: &UriRewrite, path: &str) -> Option<String> {
        let captures = self.regex.captures(path)?;
        let mut out = String::new();
        for part in &rewrite.parts {
            out.push_str(match part {
                Part::Literal(text) => text,
                Part::Variable(name) => captures.name(name)?.as_str(),
            });
        }
        Some(out)
    }
}

impl Reader {
    /// Reads segments up to the end of `text`; variables may not stand inside each other.
    fn read(&mut self, text: &str, takes_variables: bool) -> Result<(), String> {
        let mut rest = text;
        loop {
            if self.is_open && !rest.is_empty() && !rest.starts_with('/') {
                return self.read_suffix(rest);
            }
            if self.is_open && !rest.is_empty() {
                return Err("nothing may come behind `**`".to_owned());
            }
            rest = if let Some(tail) = rest.strip_prefix("**") {
                self.is_open = true;
                self.regex.push_str(SEGMENTS);
                tail
            } else if let Some(tail) = rest.strip_prefix('*') {
                self.regex.push_str(SEGMENT);
                tail
            } else if rest.starts_with('{') {
                if !takes_variables {
                    return Err("a variable inside a variable".to_owned());
                }
                self.read_variable(rest)?
            } else {
                let end = rest.find(['/', '*', '{', '}']).unwrap_or(rest.len());
                let (literal, tail) = rest.split_at(end);
                self.regex.push_str(&regex::escape(literal));
                tail
            };
            match rest.chars().next() {
                None => return Ok(()),
                Some('/') => {
                    if self.is_open {
                        return Err("nothing may come behind `**`".to_owned());
                    }
                    self.regex.push('/');
                    rest = rest.get(1..).unwrap_or_default();
                    if rest.is_empty() {
                        return Ok(());
                    }
                }
                Some(_) => return self.read_suffix(rest),
            }
        }
    }

    /// What stands behind an operator or a variable up to the end.
    fn read_suffix(&mut self, rest: &str) -> Result<(), String> {
        if rest.contains(['/', '*', '{', '}']) {
            return Err(format!("`{rest}` cannot stand where it does"));
        }
        self.regex.push_str(&regex::escape(rest));
        Ok(())
    }

    fn read_variable<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        let end = text.find('}').ok_or("a brace is not closed")?;
        let (inside, tail) = (text.get(1..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
        let (name, pattern) = inside.split_once('=').unwrap_or((inside, "*"));
        check_name(name)?;
        if !self.variables.insert(name.to_owned()) {
            return Err(format!("variable `{name}` stands there twice"));
        }
        if self.variables.len() > MOST_VARIABLES {
            return Err(format!("more than {MOST_VARIABLES} variables"));
        }
        if pattern.is_empty() {
            return Err(format!("variable `{name}` has an empty pattern"));
        }
        self.regex.push_str(&format!("(?P<{name}>"));
        self.read(pattern, false)?;
        self.regex.push(')');
        Ok(tail)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let goes_on = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match begins && goes_on && name.len() <= LONGEST_NAME {
        true => Ok(()),
        false => Err(format!("`{name}` is no name of a variable")),
    }
}

impl UriRewrite {
    /// Reads a rewrite: literals and variables in braces.
    pub fn parse(source: &str) -> Result<Self, UriTemplateError> {
        let fail = |why: &str| UriTemplateError(format!("URI template `{source}`: {why}"));
        if !source.starts_with('/') {
            return Err(fail("it has to begin with a slash"));
        }
        let mut parts = Vec::new();
        let mut rest = source;
        while !rest.is_empty() {
            let end = rest.find(['{', '}']).unwrap_or(rest.len());
            let (literal, tail) = rest.split_at(end);
            if !literal.is_empty() {
                if !literal.bytes().all(|b| b.is_ascii_graphic()) || literal.contains("//") {
                    return Err(fail("it has characters that no path has, or two slashes in a row"));
                }
                parts.push(Part::Literal(literal.to_owned()));
            }
            rest = tail;
            if let Some(inside) = rest.strip_prefix('{') {
                let (name, tail) = inside.split_once('}').ok_or_else(|| fail("a brace is not closed"))?;
                check_name(name).map_err(|why| fail(&why))?;
                parts.push(Part::Variable(name.to_owned()));
                rest = tail;
            } else if rest.starts_with('}') {
                return Err(fail("a brace is not opened"));
            }
        }
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The rewrite as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn takes(template: &str, path: &str) -> bool {
        UriTemplate::parse(template).unwrap().matches(path)
    }

    #[test]
    fn operators_take_one_segment_or_the_rest() {
        assert!(takes("/a/*/c", "/a/b/c") && !takes("/a/*/c", "/a/b/x/c") && !takes("/a/*/c", "/a//c"));
        assert!(takes("/a/**", "/a/") && takes("/a/**", "/a/b/c") && !takes("/a/**", "/a"));
        assert!(takes("/v/{path=**}.m3u8", "/v/a/b.m3u8") && !takes("/v/{path=**}.m3u8", "/v/a/b"));
        assert!(takes("/{a=x/*/y}/z", "/x/1/y/z") && !takes("/{a=x/*/y}/z", "/x/1/2/y/z"));
    }

    #[test]
    fn a_path_is_put_together_again_from_its_variables() {
        let template = UriTemplate::parse("/bar/{lang}/{country=*}").unwrap();
        let rewrite = UriRewrite::parse("/{country}/x-{lang}").unwrap();
        assert!(template.knows(&rewrite));
        assert_eq!(template.rewrite(&rewrite, "/bar/en/us").unwrap(), "/us/x-en");
        assert!(!template.knows(&UriRewrite::parse("/{town}").unwrap()));
    }

    #[test]
    fn what_is_no_template_is_told() {
        for bad in ["a", "/{a", "/{a}/{a}", "/**/a", "/{1}", "/{a={b}}", "/{a=}", "/a b", "/a/{b}c/d", "/v*"]
        {
            assert!(UriTemplate::parse(bad).is_err(), "{bad}");
        }
        for bad in ["a", "/{a", "/a}", "//a", "/{a b}"] {
            assert!(UriRewrite::parse(bad).is_err(), "{bad}");
        }
    }
}
