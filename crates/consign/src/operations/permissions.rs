//! What an export must be allowed at its destination, and how to allow it.

use schemars::JsonSchema;
use serde::Serialize;

use super::trial::Name;

/// What an export must be allowed at its destination, and what else is useful.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Permissions {
    /// The least that it needs.
    pub needed: Grant,
    /// What makes the further steps pass; absent where whoever may write may do those too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extras: Option<Grant>,
}

/// Rights, and how an owner of the destination gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Grant {
    /// The rights, each with the step that needs it.
    pub rights: Vec<Right>,
    /// A policy, a command or a sentence, ready to be pasted.
    pub grant: String,
}

/// A right as the provider calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Right {
    /// The step that needs it.
    pub step: Name,
    /// Its name.
    pub name: String,
}

impl Permissions {
    /// The names of the rights that a step needs.
    pub fn of(&self, step: Name) -> Vec<String> {
        let rights = self.extras.iter().chain([&self.needed]).flat_map(|grant| &grant.rights);
        rights.filter(|right| right.step == step).map(|right| right.name.clone()).collect()
    }
}

impl Right {
    /// Names one.
    pub fn new(step: Name, name: impl Into<String>) -> Self {
        Self { step, name: name.into() }
    }
}

/// A text as one word of a shell.
pub fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@=,+".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        for (text, word) in
            [("a/b-1", "a/b-1"), ("", "''"), ("a b", "'a b'"), ("it's; rm -rf $HOME", r"'it'\''s; rm -rf $HOME'")]
        {
            assert_eq!(shell_word(text), word);
        }
    }
}
