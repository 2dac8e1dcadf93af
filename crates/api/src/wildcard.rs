//! Shell-like patterns with `*`, as `LocalMesh` uses them for images and workload names. `*` stands for any text, the
//! empty one and `/` included. Nothing else is special; host names of Istio have their own, stricter rules in `model`.

/// Whether `pattern` describes the whole of `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(prefix) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let suffix = parts.pop().unwrap_or_default();
    // Leftmost placement of each middle part leaves the most room for those after it, so no backtracking is needed.
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.len() >= suffix.len() && text.ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_without_star_is_the_text_itself() {
        assert!(matches("a", "a"));
        assert!(!matches("a", "ab"));
        assert!(matches("", ""));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("*", ""));
        assert!(matches("*/examples-bookinfo-*", "docker.io/istio/examples-bookinfo-reviews-v1:1.20.3"));
        assert!(matches("*reviews-v2*", "istio/reviews-v2:1"));
        assert!(matches("a*b*c", "aXbbYc"));
        assert!(matches("a**b", "ab"));
        assert!(!matches("a*b", "ac"));
        assert!(!matches("ab*ba", "aba"));
        assert!(!matches("*a*a", "a"));
    }
}
