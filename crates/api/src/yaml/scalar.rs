//! What a plain scalar stands for, by the rules of the YAML reader that Kubernetes uses.

/// A scalar: its text, and what that stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// What the text stands for.
    pub kind: Kind,
    /// The text as written, quotes and folding undone.
    pub text: String,
}

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true`, `no`, `on`...
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Everything else, and everything in quotes.
    Text,
}

impl Scalar {
    /// A scalar in quotes, or a block: always text.
    pub fn quoted(text: String) -> Self {
        Self { kind: Kind::Text, text }
    }

    /// A scalar without quotes.
    pub fn plain(text: String) -> Self {
        Self { kind: resolve(&text), text }
    }
}

fn resolve(text: &str) -> Kind {
    // `y` and `n` stay text: as a label or an environment value they are far more often meant as such.
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Kind::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Kind::Text;
    }
    integer(text).map(Kind::Integer).or_else(|| float(text).map(Kind::Float)).unwrap_or(Kind::Text)
}

fn integer(text: &str) -> Option<i128> {
    let digits = text.replace('_', "");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let (radix, digits) = if let Some(hex) = digits.strip_prefix("0x") {
        (16, hex)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        (8, octal)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let digits = unsigned.replace('_', "");
    // Rust also reads `inf`, `nan` and `infinity`; those are text in YAML.
    let number = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !number || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    digits.parse::<f64>().ok().map(|value| if text.starts_with('-') { -value } else { value })
}
