//! Prepares the descriptors with which a bootstrap's JSON is read: Envoy's own, as the `envoy-types` package carries
//! them beside its generated code, without comments, options, services and all that no configuration can name.
//!
//! Written to `OUT_DIR`: `descriptors.bin`, the encoded files one behind the other, each after those it imports, and
//! `descriptors.rs`, an index over them, so that the reader loads only the files a bootstrap makes use of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumOptions, FieldDescriptorProto, FieldOptions,
    FileDescriptorProto, FileDescriptorSet, MessageOptions,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Files that a configuration can name messages of, with all they import.
const ROOTS: [&str; 5] = ["envoy/config/", "envoy/extensions/", "google/protobuf/", "udpa/type/", "xds/"];

/// Files that only annotate others; nothing of theirs stands in a configuration.
const ANNOTATIONS: [&str; 6] = [
    "envoy/annotations/",
    "google/protobuf/descriptor.proto",
    "udpa/annotations/",
    "validate/",
    "xds/annotations/",
    "google/api/annotations.proto",
];

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let set = FileDescriptorSet::decode(std::fs::read(descriptor_file()?)?.as_slice())?;
    let files: BTreeMap<String, FileDescriptorProto> =
        set.file.into_iter().map(|file| (file.name().to_owned(), slim(file))).collect();
    let options = options_file();
    let mut ordered = vec![&options];
    for name in files.keys().filter(|name| begins(name, &ROOTS) && !begins(name, &ANNOTATIONS)) {
        visit(name, &files, &mut BTreeSet::new(), &mut ordered)?;
    }
    let (bytes, index) = written(&ordered);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), bytes)?;
    std::fs::write(out.join("descriptors.rs"), index)?;
    Ok(())
}

/// Stands for `google/protobuf/descriptor.proto`, with the options that are kept and no others. A pool that does not know
/// them asks a global one, which holds half a megabyte for the rest of the process's life.
fn options_file() -> FileDescriptorProto {
    let message = |name: &str, field: &str, number| DescriptorProto {
        name: Some(name.to_owned()),
        field: vec![FieldDescriptorProto {
            name: Some(field.to_owned()),
            number: Some(number),
            label: Some(Label::Optional.into()),
            r#type: Some(Type::Bool.into()),
            ..FieldDescriptorProto::default()
        }],
        ..DescriptorProto::default()
    };
    FileDescriptorProto {
        name: Some("google/protobuf/descriptor.proto".to_owned()),
        package: Some("google.protobuf".to_owned()),
        syntax: Some("proto2".to_owned()),
        message_type: vec![
            message("MessageOptions", "map_entry", 7),
            message("FieldOptions", "packed", 2),
            message("EnumOptions", "allow_alias", 2),
        ],
        ..FileDescriptorProto::default()
    }
}

/// `types.bin` of the `envoy-types` package that this build uses.
fn descriptor_file() -> Outcome<PathBuf> {
    let cargo = std::env::var("CARGO")?;
    let mut command = Command::new(cargo);
    // Everything is there already, or this would not be running; nothing must be fetched for other platforms.
    command.args(["metadata", "--format-version=1", "--frozen", "--filter-platform"]);
    command.arg(std::env::var("TARGET")?).current_dir(std::env::var("CARGO_MANIFEST_DIR")?);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let package = packages.iter().find(|package| package["name"] == "envoy-types");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.ok_or("cargo metadata does not name the package envoy-types")?);
    Ok(manifest.with_file_name("src").join("generated").join("types.bin"))
}

fn begins(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Appends the file after those it imports.
fn visit<'a>(
    name: &'a str,
    files: &'a BTreeMap<String, FileDescriptorProto>,
    open: &mut BTreeSet<&'a str>,
    ordered: &mut Vec<&'a FileDescriptorProto>,
) -> Outcome<()> {
    if ordered.iter().any(|file| file.name() == name) || !open.insert(name) {
        return Ok(());
    }
    let file = files.get(name).ok_or_else(|| format!("`{name}` is imported and not in the set"))?;
    for import in &file.dependency {
        visit(import, files, open, ordered)?;
    }
    ordered.push(file);
    Ok(())
}

fn slim(mut file: FileDescriptorProto) -> FileDescriptorProto {
    file.source_code_info = None;
    file.options = None;
    file.service.clear();
    file.extension.clear();
    // The positions of public and weak imports are not kept; Envoy's files have none.
    file.public_dependency.clear();
    file.weak_dependency.clear();
    file.dependency.retain(|import| !begins(import, &ANNOTATIONS));
    file.message_type.iter_mut().for_each(slim_message);
    file.enum_type.iter_mut().for_each(slim_enum);
    file
}

fn slim_message(message: &mut DescriptorProto) {
    let map_entry = message.options.as_ref().and_then(|options| options.map_entry);
    message.options = map_entry.map(|_| MessageOptions { map_entry, ..MessageOptions::default() });
    message.reserved_range.clear();
    message.reserved_name.clear();
    message.extension.clear();
    message.field.iter_mut().for_each(slim_field);
    message.nested_type.iter_mut().for_each(slim_message);
    message.enum_type.iter_mut().for_each(slim_enum);
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
}

fn slim_field(field: &mut FieldDescriptorProto) {
    let packed = field.options.as_ref().and_then(|options| options.packed);
    field.options = packed.map(|_| FieldOptions { packed, ..FieldOptions::default() });
}

fn slim_enum(enumeration: &mut EnumDescriptorProto) {
    let allow_alias = enumeration.options.as_ref().and_then(|options| options.allow_alias);
    enumeration.options = allow_alias.map(|_| EnumOptions { allow_alias, ..EnumOptions::default() });
    enumeration.reserved_range.clear();
    enumeration.reserved_name.clear();
    enumeration.value.iter_mut().for_each(|value| value.options = None);
}

/// The encoded files, and the Rust text of the index.
fn written(ordered: &[&FileDescriptorProto]) -> (Vec<u8>, String) {
    let place: HashMap<&str, usize> =
        ordered.iter().enumerate().map(|(at, file)| (file.name(), at)).collect();
    let (mut bytes, mut files, mut messages) = (Vec::new(), String::new(), BTreeMap::new());
    for (at, file) in ordered.iter().enumerate() {
        let start = bytes.len();
        bytes.extend(file.encode_to_vec());
        let imports: Vec<usize> =
            file.dependency.iter().filter_map(|name| place.get(name.as_str()).copied()).collect();
        let _ =
            writeln!(files, "    File {{ start: {start}, end: {}, imports: &{imports:?} }},", bytes.len());
        // Nothing of the first file, the options, stands in a configuration.
        let named = file.message_type.iter().filter(|_| at > 0);
        messages.extend(named.map(|message| (format!("{}.{}", file.package(), message.name()), at)));
    }
    let mut index = format!("static FILES: [File; {}] = [\n{files}];\n", ordered.len());
    let _ = writeln!(index, "static MESSAGES: [(&str, u16); {}] = [", messages.len());
    for (name, at) in messages {
        let _ = writeln!(index, "    ({name:?}, {at}),");
    }
    index.push_str("];\n");
    (bytes, index)
}
