#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::yaml::{Limits, load, split};

message! {
    /// A message with one field of each kind.
    struct Sample {
        text: String,
        port: u16,
        share: f64,
        flag: Option<bool>,
        long_time: Option<Duration>,
        list: Vec<String>,
        map: BTreeMap<String, String>,
        by_port: BTreeMap<u16, Sample>,
        color: Color,
        renamed_ip as "renamedIP": String,
        target: Option<IntOrString>,
        bytes: Option<Bytes>,
    }
}

choice! {
    /// A choice.
    enum Color {
        /// Red.
        Red = ("RED", 0),
        /// Blue.
        DarkBlue = ("DARK_BLUE", 4),
    }
}

fn decode(style: Style, text: &str) -> (Sample, Vec<String>) {
    let root = load(split(text)[0], Limits::default()).unwrap().root.unwrap();
    let mut decoder = Decoder::new(style, "");
    let sample = Sample::decode(&root, &mut decoder).unwrap_or_default();
    let problems = decoder.into_problems().into_iter().map(|problem| {
        let help = problem.help.map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{} {}: {}{help}", problem.line, problem.column, problem.field, problem.message)
    });
    (sample, problems.collect())
}

fn protobuf(text: &str) -> (Sample, Vec<String>) {
    decode(Style::Protobuf, text)
}

#[test]
fn protobuf_json_takes_both_spellings_quoted_numbers_and_enum_numbers() {
    let (sample, problems) =
        protobuf("long_time: 1h\nport: \"80\"\nshare: \"0.5\"\ncolor: 4\nbyPort: {\"80\": {port: 8080.0}}\n");
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(sample.long_time, Some(Duration::from_secs(3600)));
    assert_eq!((sample.port, sample.share, sample.color), (80, 0.5, Color::DarkBlue));
    assert_eq!(sample.by_port[&80].port, 8080);
    assert_eq!(sample.color.as_str(), "DARK_BLUE");
}

#[test]
fn kubernetes_takes_names_and_types_as_documented_only() {
    let (sample, problems) =
        decode(Style::Kubernetes, "long_time: 1h\nport: \"80\"\nrenamedIP: None\nwhatever: 1\n");
    assert_eq!(problems, ["2:7 port: expected a whole number, found the text `80` (leave the quotes away)"]);
    assert_eq!((sample.long_time, sample.renamed_ip.as_str()), (None, "None"));
}

#[test]
fn a_number_or_boolean_where_text_belongs_says_how_to_write_it() {
    let (_, problems) = protobuf("text: 1.10\nlist: [yes]\nmap: {version: 1}\n");
    assert_eq!(
        problems,
        [
            "1:7 text: expected a string, found the number `1.10` (write \"1.10\" in quotes)",
            "2:8 list[0]: expected a string, found the boolean `yes` (write \"yes\" in quotes)",
            "3:16 map.version: expected a string, found the number `1` (write \"1\" in quotes)",
        ]
    );
}

#[test]
fn every_problem_is_found_at_its_own_place() {
    let (sample, problems) = protobuf(
        "prt: 80\nport: 70000\nflag: \"true\"\nlongTime: 5\ncolor: BLUE\nmap: [a]\nlist: {a: 1}\nbyPort: {x: {}}\nbytes: \"!\"\ntext: kept\n",
    );
    assert_eq!(sample.text, "kept");
    assert_eq!(
        problems,
        [
            "1:1 prt: unknown field `prt`; it is ignored (did you mean `port`?)",
            "2:7 port: 70000 is not between 0 and 65535",
            "3:7 flag: expected true or false, found the text `true` (leave the quotes away)",
            "4:11 longTime: expected a duration, found the number `5` (add a unit: `5s` for seconds, `5ms` for milliseconds)",
            "5:8 color: expected one of RED, DARK_BLUE, found the text `BLUE`",
            "6:6 map: expected a mapping, found a list (write `key: value` pairs)",
            "7:7 list: expected a list, found a mapping (begin each item with `- `)",
            "8:13 byPort.x: expected a port number, found `x`",
            "9:8 bytes: expected base64: Invalid symbol 33, offset 0. (plain text goes into `string`)",
        ]
    );
}

#[test]
fn a_field_in_both_spellings_is_written_twice() {
    let (_, problems) = protobuf("longTime: 1s\nlong_time: 2s\n");
    assert_eq!(problems, ["2:1 long_time: the field `longTime` is written twice"]);
}

#[test]
fn null_is_as_good_as_absent() {
    let (sample, problems) = protobuf("text:\nport: ~\nmap: null\n");
    assert_eq!((sample, problems), (Sample::default(), Vec::new()));
}

#[test]
fn a_target_port_is_a_number_or_a_name() {
    let target = |text: &str| protobuf(&format!("target: {text}")).0.target;
    assert_eq!(target("8080"), Some(IntOrString::Int(8080)));
    assert_eq!(target("http"), Some(IntOrString::String("http".into())));
    assert_eq!(target("\"8080\""), Some(IntOrString::String("8080".into())));
    assert_eq!(target("[]"), None);
}

#[test]
fn near_misses_are_recognised_and_far_ones_left_alone() {
    let known = ["route", "redirect", "timeout", "match"];
    assert_eq!(closest("rout", known), Some("route"));
    assert_eq!(closest("Timeout", known), Some("timeout"));
    assert_eq!(closest("time_out", known), Some("timeout"));
    assert_eq!(closest("websocketUpgrade", known), None);
    assert_eq!(closest(&"r".repeat(1000), known), None);
}

#[test]
fn a_resource_with_a_million_problems_is_reported_in_a_screenful_and_still_rejected() {
    let unknown: String = (0..300).map(|index| format!("unknown{index}: 1\n")).collect();
    let (_, problems) = protobuf(&format!("{unknown}list: [{}]\n", "1,".repeat(5000)));
    assert_eq!(problems.len(), MOST_PROBLEMS);
    assert!(problems[MOST_PROBLEMS - 1].contains("list[4999]"));
}
