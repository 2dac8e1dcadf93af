//! `docs/istio-api.md` is what the code says. `UPDATE_GOLDEN=1 cargo test -p ieum-control --test istio_api` writes it anew.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn the_table_of_fields_is_what_the_code_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/istio-api.md");
    let table = ieum_control::support::table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == table,
        "docs/istio-api.md is not what the code says"
    );
}
