//! Reading the small bodies of clients, so that an error names the field.

use serde_json::{Map, Value};

use super::error::MatrixError;

/// The fields of a body that has to be an object.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, MatrixError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(MatrixError::bad_json("the body is not an object")),
            Err(error) => Err(MatrixError::not_json(&error)),
        }
    }

    /// Reads a body that may be empty.
    pub(crate) fn parse_optional(body: &[u8]) -> Result<Self, MatrixError> {
        if body.is_empty() { Ok(Self(Map::new())) } else { Self::parse(body) }
    }

    /// A field, null included.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A text; absent is `None`, null is `Some(None)`.
    pub(crate) fn text(&self, name: &str, max: usize) -> Result<Option<Option<&str>>, MatrixError> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) if text.len() <= max => Ok(Some(Some(text))),
            Some(Value::String(_)) => Err(MatrixError::invalid(format!("{name:?} is longer than {max} bytes"))),
            Some(_) => Err(MatrixError::bad_json(format!("{name:?} must be a text or null"))),
        }
    }

    /// Yes or no; absent is `None`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, MatrixError> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(MatrixError::bad_json(format!("{name:?} must be true or false"))),
        }
    }

    /// A whole number of milliseconds; absent is `None`, null is `Some(None)`.
    pub(crate) fn millis(&self, name: &str) -> Result<Option<Option<u64>>, MatrixError> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => match value.as_u64() {
                Some(ms) => Ok(Some(Some(ms))),
                None => Err(MatrixError::bad_json(format!("{name:?} must be a whole number of ms, or null"))),
            },
        }
    }
}
