//! Which names and namespaces a resource is for: `exportTo`, and host names with wildcards.

/// The namespaces that see a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Visibility {
    /// All.
    Everywhere,
    /// These.
    Namespaces(Vec<String>),
}

impl Visibility {
    /// Reads `exportTo` of a resource in `namespace`. Empty means as the mesh says, which is everywhere where that is empty.
    pub(super) fn of(export_to: &[String], of_mesh: &[String], namespace: &str) -> Self {
        let export_to = if export_to.is_empty() { of_mesh } else { export_to };
        if export_to.is_empty() || export_to.iter().any(|to| to == "*") {
            return Self::Everywhere;
        }
        let own = |to: &String| if to == "." { namespace.to_owned() } else { to.clone() };
        Self::Namespaces(export_to.iter().filter(|to| *to != "~").map(own).collect())
    }

    /// The namespaces that are named.
    pub(super) fn namespaces(&self) -> &[String] {
        match self {
            Self::Everywhere => &[],
            Self::Namespaces(all) => all,
        }
    }

    /// Whether `namespace` sees it.
    pub(super) fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespaces(all) => all.iter().any(|one| one == namespace),
        }
    }
}

/// Whether `pattern` (a host, `*.suffix` or `*`) stands for `host`, which may be a wildcard itself.
pub(super) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == host,
        Some("") => true,
        Some(suffix) => {
            let host = host.strip_prefix('*').unwrap_or(host);
            // `*.example.com` does not stand for `example.com`, but it does for itself.
            host.ends_with(suffix) && (host.len() > suffix.len() || pattern.len() == host.len() + 1)
        }
    }
}

/// How specific a pattern is: exact names before wildcards, longer wildcards before shorter.
pub(super) fn specificity(pattern: &str) -> (bool, usize) {
    (!pattern.starts_with('*'), pattern.len())
}

/// The more specific of two host patterns when one stands for the other: the hosts that both are for.
pub(super) fn intersection<'h>(a: &'h str, b: &'h str) -> Option<&'h str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_what_is_below_it_only() {
        assert!(covers("*.example.com", "a.example.com") && covers("*.example.com", "a.b.example.com"));
        assert!(covers("*.example.com", "*.example.com") && covers("*.example.com", "*.b.example.com"));
        assert!(!covers("*.example.com", "example.com") && !covers("*.example.com", "badexample.com"));
        assert!(!covers("*.b.example.com", "*.example.com"));
        assert!(covers("*", "anything") && !covers("a", "b"));
    }

    #[test]
    fn the_more_specific_of_two_hosts_is_what_both_are_for() {
        assert_eq!(intersection("*", "a.com"), Some("a.com"));
        assert_eq!(intersection("b.a.com", "*.a.com"), Some("b.a.com"));
        assert_eq!(intersection("a.com", "b.com"), None);
    }

    #[test]
    fn export_to_names_namespaces_and_a_dot_is_ones_own() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(Visibility::of(&[], &[], "a").includes("b"));
        assert!(Visibility::of(&list(&["."]), &[], "a").includes("a"));
        assert!(!Visibility::of(&list(&[".", "c"]), &[], "a").includes("b"));
        assert!(!Visibility::of(&list(&["~"]), &[], "a").includes("a"));
    }

    #[test]
    fn the_meshs_default_counts_where_a_resource_has_no_export_to_of_its_own() {
        let own = [".".to_owned()];
        assert!(!Visibility::of(&[], &own, "a").includes("b"));
        assert!(Visibility::of(&["*".to_owned()], &own, "a").includes("b"));
    }
}
