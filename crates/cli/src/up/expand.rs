//! `$(VARIABLE)` as Kubernetes expands it in a container's environment, command and arguments: a known name becomes its
//! value, an unknown one stays as written, and `$$` is a dollar sign that begins nothing.

/// Expands `text`; `value` knows the variables.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match value(name) {
                Some(value) => expanded.push_str(&value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Variables in the order they were set; a later one of the same name replaces the earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    /// Sets `name` to `value` as it is.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.into()));
    }

    /// Sets `name` to `value` with references to what is set so far expanded.
    pub(super) fn set_expanded(&mut self, name: &str, value: &str) {
        let expanded = self.expand(value);
        self.set(name, expanded);
    }

    /// The value of `name`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `text` with references to these variables expanded.
    pub(super) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.value(name).map(str::to_owned))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let mut variables = Variables::default();
        variables.set("PORT", "8080");
        variables.set("EMPTY", "");
        for (text, expected) in [
            ("--port=$(PORT)", "--port=8080"),
            ("$(PORT)$(PORT)", "80808080"),
            ("[$(EMPTY)]", "[]"),
            ("$(UNKNOWN) stays", "$(UNKNOWN) stays"),
            ("$$(PORT)", "$(PORT)"),
            ("$$$(PORT)", "$8080"),
            ("$PORT and ${PORT}", "$PORT and ${PORT}"),
            ("$(PORT", "$(PORT"),
            ("ends with $", "ends with $"),
            ("이음 $(PORT)", "이음 8080"),
        ] {
            assert_eq!(variables.expand(text), expected, "{text}");
        }
    }

    #[test]
    fn a_variable_sees_those_before_it_and_replaces_its_namesake() {
        let mut variables = Variables::default();
        variables.set_expanded("A", "$(B)");
        variables.set_expanded("B", "2");
        variables.set_expanded("C", "$(A)-$(B)");
        variables.set_expanded("B", "3");
        let all: Vec<_> = variables.iter().collect();
        assert_eq!(all, [("A", "$(B)"), ("C", "$(B)-2"), ("B", "3")]);
    }
}
