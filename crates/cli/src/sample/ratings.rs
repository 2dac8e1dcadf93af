//! `ratings`: how many stars each reviewer gave.

use super::Instance;
use super::details::product;
use super::http::{Closed, Request, Response, Service, json, not_served, signed, text};
use hyper::{Method, StatusCode};
use serde_json::json;
use std::net::SocketAddr;

pub(super) struct Ratings {
    instance: Instance,
}

impl Ratings {
    pub(super) fn new(instance: Instance) -> Self {
        Ratings { instance }
    }
}

impl Service for Ratings {
    async fn answer(&self, request: Request, _: SocketAddr) -> Result<Response, Closed> {
        let path = request.uri().path();
        let response = match (request.method(), path, product(path, "/ratings/")) {
            (&Method::GET | &Method::HEAD, "/health", _) => text(StatusCode::OK, "ratings is healthy\n"),
            (&Method::GET | &Method::HEAD, _, Some(Ok(id))) => {
                json(StatusCode::OK, &json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}))
            }
            (&Method::GET | &Method::HEAD, _, Some(Err(refusal))) => refusal,
            (method, _, _) => not_served(method, path),
        };
        Ok(signed(response, &self.instance))
    }
}
