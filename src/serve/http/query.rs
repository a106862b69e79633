//! What follows the `?` of a request.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use axum::http::Uri;

use super::path::decoded;
use crate::serve::problem::Problem;
use crate::spelling::nearest;

/// The parameters of a request, each given once and known to the route.
pub(super) struct Query<'a>(Vec<(&'static str, Cow<'a, [u8]>)>);

impl<'a> Query<'a> {
    pub(super) fn of(uri: &'a Uri, allowed: &[&'static str]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, Cow<'a, [u8]>)> = Vec::new();
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for (name, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
                return Err(unknown(name, allowed));
            };
            if found.iter().any(|(given, _)| given == name) {
                return Err(Problem::bad_request(format!(
                    "the parameter `{name}` is given more than once"
                )));
            }
            found.push((*name, value_of(name, value)?));
        }
        Ok(Self(found))
    }

    /// The bytes of a parameter.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| &**value)
    }

    /// The bytes of a parameter that is a key.
    pub(super) fn key(&self, name: &str) -> Result<Option<&[u8]>, Problem> {
        match self.bytes(name) {
            Some([]) => Err(Problem::bad_request(format!(
                "the parameter `{name}` is empty; it is a key, of at least 1 byte, or left out"
            ))),
            key => Ok(key),
        }
    }

    /// A parameter that is `true` or `false`; `false` when it is left out.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.bytes(name) {
            None | Some(b"false") => Ok(false),
            Some(b"true") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!(
                "the parameter `{name}` is neither `true` nor `false`"
            ))),
        }
    }

    /// A parameter that is read as something else than bytes.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        let wrong =
            |why: &dyn Display| Problem::bad_request(format!("the parameter `{name}`: {why}"));
        let text = std::str::from_utf8(bytes).map_err(|_| wrong(&"it is not UTF-8"))?;
        text.parse().map(Some).map_err(|why: T::Err| wrong(&why))
    }
}

/// As forms and the libraries of all languages encode it: a plus is a space.
fn value_of<'a>(name: &str, value: &'a str) -> Result<Cow<'a, [u8]>, Problem> {
    let what = format_args!("the parameter `{name}`").to_string();
    if value.contains('+') {
        let spaced = value.replace('+', " ");
        return Ok(Cow::Owned(decoded(&spaced, &what)?.into_owned()));
    }
    decoded(value, &what)
}

fn unknown(name: &str, allowed: &[&'static str]) -> Problem {
    let name = name.get(..40).unwrap_or(name);
    let list = allowed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let may = match (allowed, nearest(name, allowed.iter().copied())) {
        ([], _) => "this route takes none".to_owned(),
        (_, Some(near)) => format!("did you mean `{near}`? allowed: {list}"),
        (_, None) => format!("allowed: {list}"),
    };
    Problem::bad_request(format!("there is no parameter `{}`; {may}", name.escape_default()))
}
