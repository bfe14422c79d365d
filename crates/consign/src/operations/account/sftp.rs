//! An SFTP server, and a way to log in to it.

use connectors::Network;
use connectors::sftp::{Config, Sftp};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{given, given_secret};
use crate::error::Faults;
use crate::secret::Secret;

/// The port of SSH.
const PORT: u16 = 22;

/// Logs in to one server.
#[derive(Deserialize, JsonSchema, Validate)]
pub(in crate::operations) struct Account {
    /// Name or address of the server.
    #[garde(length(min = 1, max = 255))]
    host: String,
    /// Port of the server.
    #[garde(range(min = 1))]
    #[serde(default = "default_port", deserialize_with = "port")]
    port: u16,
    /// User to log in as.
    #[garde(length(min = 1, max = 255))]
    username: String,
    /// Password of the user. Write only. Either this or `private_key` is required.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    password: Option<Secret>,
    /// Private key of the user, the whole text of the file: OpenSSH, PKCS#1, PKCS#8 or SEC 1; Ed25519, ECDSA or RSA;
    /// without a passphrase. Write only.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    private_key: Option<Secret>,
    /// The server's host key to insist on: a fingerprint such as `SHA256:…`, or a public key. By default any is
    /// accepted, and the result names its fingerprint.
    #[garde(length(max = 4096))]
    host_key: Option<String>,
}

fn default_port() -> u16 {
    PORT
}

/// Reads a port as clients send it: a number, or a number in a string.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
        None,
    }
    match Port::deserialize(deserializer)? {
        Port::Number(port) => Ok(port),
        Port::Text(text) => {
            text.trim().parse().map_err(|_| serde::de::Error::custom("a port is a number from 1 to 65535"))
        }
        Port::None => Ok(PORT),
    }
}

impl Account {
    /// Checks what spans fields.
    pub(in crate::operations) fn check(&self, faults: &mut Faults) {
        if given_secret(self.password.as_ref()).or(given_secret(self.private_key.as_ref())).is_none() {
            faults.add("password", "The password field is required when private_key is not present.");
        }
    }

    /// The user to log in as.
    pub(in crate::operations) fn username(&self) -> &str {
        &self.username
    }

    /// Reaches the server.
    ///
    /// # Errors
    /// A private key that cannot be read.
    pub(in crate::operations) fn connector(&self, network: &Network) -> connectors::Result<Sftp> {
        let config = Config {
            host: self.host.clone(),
            port: self.port,
            username: self.username.clone(),
            password: given_secret(self.password.as_ref()),
            private_key: given_secret(self.private_key.as_ref()),
            host_key: given(self.host_key.as_ref()),
            limits: network.limits,
        };
        Sftp::new(config, network.guard.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn ports_come_as_numbers_and_as_strings() {
        let account = |port: Value| json!({ "host": "h", "username": "u", "password": "p", "port": port });
        let read = |args: Value| serde_json::from_value::<Account>(args);
        for (sent, expected) in [(json!(2022), 2022), (json!("2022"), 2022), (json!(" 22 "), 22), (Value::Null, 22)] {
            assert_eq!(read(account(sent)).unwrap().port, expected);
        }
        assert_eq!(read(json!({ "host": "h", "username": "u" })).unwrap().port, 22);
        for wrong in [json!("ssh"), json!(70_000), json!(-1), json!("")] {
            assert!(read(account(wrong.clone())).is_err(), "{wrong}");
        }
        assert!(read(account(json!(0))).unwrap().validate().is_err());
    }
}
