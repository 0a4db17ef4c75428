//! HTTP to the hosts named in the `http` grant. While a plugin waits, nothing else does.

use serde::Serialize;

use crate::{Error, host::http};

pub use crate::bindings::tidegate::plugin::http::{Request, Response};

impl Request {
    /// A request without headers or body.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout: None }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` of JSON.
    ///
    /// # Errors
    /// The value cannot be JSON.
    pub fn post_json(url: impl Into<String>, value: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
        let mut request = Self::new("POST", url).header("content-type", "application/json");
        request.body = body;
        Ok(request)
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with so many milliseconds at most.
    #[must_use]
    pub fn timeout(mut self, milliseconds: u32) -> Self {
        self.timeout = Some(milliseconds);
        self
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Errors
    /// Not granted, not in time, too large, or failed. An answer of any status is no error.
    pub fn send(&self) -> Result<Response, Error> {
        http::send(self)
    }
}
