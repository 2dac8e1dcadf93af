//! What the upstream is asked for instead.

use super::case::{Case, get};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        get("prefix rewrite", "/rw/a/b?x=1", &[]).status(200).seen(&["/new/a/b?x=1"]),
        get("prefix rewrite to the root", "/strip/a", &[]).seen(&["/a"]),
        get("prefix rewrite to the root of nothing", "/strip/", &[]).seen(&["/"]),
        get("prefix rewrite of an exact path", "/rw-exact?x=1", &[]).seen(&["/whole?x=1"]),
        get("prefix rewrite ignoring case", "/rw-case/Rest", &[]).seen(&["/lower/Rest"]),
        get("regex rewrite", "/rx/a/b/c?x=1", &[]).seen(&["/b/c/by/a?x=1"]),
        get("regex rewrite that finds nothing", "/rx/a", &[]).seen(&["/rx/a"]),
        get("host rewrite", "/host", &[])
            .seen_header("host", "other.test")
            .seen_header("x-forwarded-host", ""),
        get("host rewrite from a header", "/host-header", &["x-host: from.header.test"])
            .seen_header("host", "from.header.test"),
        get("host rewrite from a header that is absent", "/host-header", &[])
            .seen_header("host", "main.test"),
        get("slashes kept", "/prefix//a///b", &[]).seen(&["/prefix//a///b"]),
        get("slashes merged", "/prefix//a///b?x=//", &[]).at(|at| at.paths).seen(&["/prefix/a/b?x=//"]),
        get("slash escaped and kept", "/prefix/a%2Fb", &[]).seen(&["/prefix/a%2Fb"]),
        get("slash escaped and refused", "/prefix/a%2fb", &[]).at(|at| at.paths).refused(400),
        get("backslash escaped and refused", "/prefix/a%5Cb", &[]).at(|at| at.paths).refused(400),
        get("slash escaped and decoded", "/prefix/a%2Fb", &[]).at(|at| at.unescaped).seen(&["/prefix/a/b"]),
        get("dots resolved", "/prefix/a/../b/./c", &[]).seen(&["/prefix/b/c"]),
        get("dots resolved before the route is chosen", "/exact/../prefix/x", &[])
            .route("prefix")
            .seen(&["/prefix/x"]),
        get("dots escaped", "/prefix/a/%2e%2E/b", &[]).seen(&["/prefix/b"]),
        get("dots at the end", "/prefix/a/..", &[]).seen(&["/prefix/"]),
        get("dots in a query", "/prefix/a?x=/../b", &[]).seen(&["/prefix/a?x=/../b"]),
        get("letters escaped", "/%70refix/%7Ea%20b", &[]).route("prefix").seen(&["/prefix/~a%20b"]),
        get("escapes in small letters", "/prefix/%c3%a4", &[]).status(200),
        get("backslash", "/prefix\\a", &[]).status(200),
        get("fragment", "/prefix/a#b", &[]).own().garbled().status(400),
        get("nul escaped", "/prefix/a%00b", &[]).own(),
        get("percent sign alone", "/prefix/a%b", &[])
            .own()
            .differs("a percent sign without two digits is 400: two parties could read two paths"),
        get("dots above the root", "/../prefix", &[]).own().differs("dots above the root are 400"),
    ]
}
