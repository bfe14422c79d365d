//! The arguments of an operation as a type: one struct, or an account of a storage with the operation's own beside it.

use garde::Validate;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};
use serde_path_to_error::Error as Located;

/// What an operation takes. Every struct that can be read, described and validated is one, and so is [`With`].
pub trait Arguments: Sized + Send + Sync {
    /// JSON Schema, with documentation; secrets are `writeOnly`.
    fn schema() -> Schema;

    /// Reads the arguments; members that it does not know are no fault.
    ///
    /// # Errors
    /// What is wrong, and where.
    fn read(args: &Value) -> Result<Self, Located<Error>>;

    /// As [`Self::read`], without a copy where that can be had: an argument may be a whole file.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn take(args: Value) -> Result<Self, Located<Error>> {
        Self::read(&args)
    }

    /// Values out of their bounds: the path of each, and what the validator says of it.
    fn out_of_bounds(&self) -> Vec<(String, String)>;
}

impl<T: DeserializeOwned + JsonSchema + Validate<Context = ()> + Send + Sync> Arguments for T {
    fn schema() -> Schema {
        schemars::schema_for!(T)
    }

    fn read(args: &Value) -> Result<Self, Located<Error>> {
        serde_path_to_error::deserialize(args)
    }

    fn take(args: Value) -> Result<Self, Located<Error>> {
        serde_path_to_error::deserialize(args)
    }

    fn out_of_bounds(&self) -> Vec<(String, String)> {
        let report = self.validate().err();
        let faults = report.iter().flat_map(garde::Report::iter);
        faults.map(|(path, error)| (path.to_string(), error.to_string())).collect()
    }
}

/// An account of a storage, which import and export share, and what one of them takes besides; all in one object on
/// the wire. Both are read from the whole object: `#[serde(flatten)]` would lose the path of what is wrong.
#[expect(missing_debug_implementations, reason = "arguments hold credentials and URLs")]
pub struct With<Account, Own> {
    /// What reaches the storage.
    pub account: Account,
    /// The operation's own arguments. The manual stands on them.
    pub own: Own,
}

impl<Account, Own> Arguments for With<Account, Own>
where
    Account: for<'de> Deserialize<'de> + JsonSchema + Validate<Context = ()> + Send + Sync,
    Own: for<'de> Deserialize<'de> + JsonSchema + Validate<Context = ()> + Send + Sync,
{
    fn schema() -> Schema {
        let mut whole = <Own as Arguments>::schema();
        let account = <Account as Arguments>::schema().to_value();
        for keyword in ["properties", "$defs"] {
            let members = account.get(keyword).and_then(Value::as_object).cloned().unwrap_or_default();
            let own = whole.remove(keyword);
            let own = own.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
            let all: serde_json::Map<_, _> = members.into_iter().chain(own).collect();
            if !all.is_empty() {
                whole.insert(keyword.to_owned(), Value::Object(all));
            }
        }
        let required = account.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let own = whole.remove("required");
        let own = own.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        whole.insert("required".to_owned(), required.into_iter().chain(own).collect());
        whole
    }

    fn read(args: &Value) -> Result<Self, Located<Error>> {
        Ok(Self { account: Arguments::read(args)?, own: Arguments::read(args)? })
    }

    fn out_of_bounds(&self) -> Vec<(String, String)> {
        [self.account.out_of_bounds(), self.own.out_of_bounds()].concat()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An account.
    #[derive(Debug, Deserialize, JsonSchema, Validate)]
    struct Account {
        #[garde(length(min = 1))]
        host: String,
        #[garde(skip)]
        port: Option<u16>,
    }

    /// What the manual says.
    #[derive(Debug, Deserialize, JsonSchema, Validate)]
    struct Own {
        #[garde(length(max = 3))]
        file: String,
    }

    type Both = With<Account, Own>;

    #[test]
    fn a_schema_has_the_members_of_both_and_the_words_of_its_own() {
        let schema = Both::schema();
        let names: Vec<_> = schema.as_value()["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["host", "port", "file"]);
        assert_eq!(schema.as_value()["required"], json!(["host", "file"]));
        assert_eq!(schema.as_value()["description"], "What the manual says.");
    }

    #[test]
    fn faults_are_found_in_both_by_path() {
        let wrong = Both::read(&json!({ "host": "h", "port": "x", "file": "f" })).err().unwrap();
        assert_eq!(wrong.path().to_string(), "port");
        let wrong = Both::take(json!({ "host": "h", "file": 1 })).err().unwrap();
        assert_eq!(wrong.path().to_string(), "file");
        let both = Both::read(&json!({ "host": "", "file": "long" })).unwrap();
        let paths: Vec<_> = both.out_of_bounds().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["host", "file"]);
        assert_eq!((both.account.port, both.own.file.as_str()), (None, "long"));
    }
}
