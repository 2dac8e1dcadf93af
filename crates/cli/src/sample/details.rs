//! `details`: the bibliographic data of the one book.

use super::Instance;
use super::http::{Closed, Request, Response, Service, json, not_served, signed, text};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;

pub(super) struct Details {
    instance: Instance,
}

impl Details {
    pub(super) fn new(instance: Instance) -> Self {
        Details { instance }
    }
}

fn book(id: u32) -> Value {
    json!({
        "id": id,
        "author": "Noor Halvorsen",
        "year": 2024,
        "type": "paperback",
        "pages": 312,
        "publisher": "Skarv & Daughters",
        "language": "English",
        "ISBN-10": "0306406152",
        "ISBN-13": "978-0306406157",
    })
}

impl Service for Details {
    async fn answer(&self, request: Request, _: SocketAddr) -> Result<Response, Closed> {
        let path = request.uri().path();
        let response = match (request.method(), path, product(path, "/details/")) {
            (&Method::GET | &Method::HEAD, "/health", _) => text(StatusCode::OK, "details is healthy\n"),
            (&Method::GET | &Method::HEAD, _, Some(Ok(id))) => json(StatusCode::OK, &book(id)),
            (&Method::GET | &Method::HEAD, _, Some(Err(refusal))) => refusal,
            (method, _, _) => not_served(method, path),
        };
        Ok(signed(response, &self.instance))
    }
}

/// The product id in a path below `prefix`; an answer that says so when it is no number.
pub(super) fn product(path: &str, prefix: &str) -> Option<Result<u32, Response>> {
    let id = path.strip_prefix(prefix)?;
    Some(id.parse().map_err(|_| {
        let error = format!("product id is \"{}\", expected a number", id.escape_debug());
        json(StatusCode::BAD_REQUEST, &json!({ "error": error }))
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_product_id_is_a_number() {
        assert_eq!(product("/details/7", "/details/").unwrap().unwrap(), 7);
        assert_eq!(product("/details/x", "/details/").unwrap().unwrap_err().status(), 400);
        assert!(product("/other/7", "/details/").is_none());
    }
}
