//! The jobs of a run, as data: what is taken in, where it goes, what the client does meanwhile.

use serde::{Deserialize, Serialize};
use testkit::bytes;

use crate::dice::Dice;

const KIB: u64 = 1024;
/// Sizes of small files.
const SMALL: std::ops::Range<u64> = 1..300 * KIB;
/// Sizes of files that are sent in parts.
const LARGE: std::ops::Range<u64> = 6 * 1024 * KIB..12 * 1024 * KIB;
/// Sizes of files whose parts may go ahead: some parts of 5 MiB.
const AHEAD: std::ops::Range<u64> = 11 * 1024 * KIB..24 * 1024 * KIB;
/// Largest file that is part of a request.
const INLINE_BYTES_MAX: u64 = 40 * KIB;

/// Where an export goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// `export/s3`.
    S3,
    /// `export/sftp`.
    Sftp,
    /// `export/azure/blob`.
    Azure,
    /// `export/google-cloud-storage`.
    Gcs,
    /// `export/openstack`.
    Swift,
    /// `export/upload`.
    Upload,
    /// `export/url`.
    Url,
}

impl Place {
    /// All of them: one for each export that the program has.
    pub const ALL: [Self; 7] = [Self::S3, Self::Sftp, Self::Azure, Self::Gcs, Self::Swift, Self::Upload, Self::Url];

    /// Those that take parts of a file that is still arriving.
    const EARLY: [Self; 4] = [Self::S3, Self::Azure, Self::Gcs, Self::Sftp];

    /// Its name in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Sftp => "sftp",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
            Self::Swift => "swift",
            Self::Upload => "upload",
            Self::Url => "url",
        }
    }

    /// The operation that delivers there.
    pub fn operation(self) -> &'static str {
        match self {
            Self::S3 => "export/s3",
            Self::Sftp => "export/sftp",
            Self::Azure => "export/azure/blob",
            Self::Gcs => "export/google-cloud-storage",
            Self::Swift => "export/openstack",
            Self::Upload => "export/upload",
            Self::Url => "export/url",
        }
    }
}

/// How a file comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Import {
    /// `import/upload`, through whichever process has its turn.
    Upload,
    /// `import/url`.
    Url,
    /// `import/raw`.
    Raw,
    /// `import/base64`.
    Base64,
}

/// How the client follows its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// It asks again and again.
    Ask,
    /// It waits for the end.
    Wait,
    /// It reads the stream of events.
    Stream,
}

/// What the client does before the job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Nothing.
    Nothing,
    /// It cancels the first export after so many milliseconds.
    Cancel(u64),
    /// It deletes the job after so many milliseconds.
    Delete(u64),
}

/// A job: one file in, and several exports of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Names the job and all that comes of it; also its `Idempotency-Key`.
    pub tag: String,
    /// How the file comes in.
    pub import: Import,
    /// What the file holds, see [`Spec::content`].
    pub seed: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where it goes.
    pub exports: Vec<Place>,
    /// Whether the exports also name an input that fails and may fail.
    pub has_lame_input: bool,
    /// How often the same creation is sent.
    pub sent: u64,
    /// How the client follows it.
    pub follow: Follow,
    /// What the client does meanwhile.
    pub change: Change,
    /// Whether its end is told to a webhook.
    pub has_webhook: bool,
}

impl Spec {
    /// Draws the next job of a run; `places` are those that there are.
    pub(crate) fn draw(dice: &mut Dice, seed: u64, number: u64, places: &[Place]) -> Self {
        let import =
            *dice.pick(&[Import::Upload, Import::Upload, Import::Url, Import::Url, Import::Raw, Import::Base64]);
        let mut size = match import {
            Import::Raw | Import::Base64 => dice.within(1..INLINE_BYTES_MAX),
            Import::Upload | Import::Url if dice.chance(40) => dice.within(LARGE),
            Import::Upload | Import::Url => dice.within(SMALL),
        };
        let mut exports = places.to_vec();
        dice.shuffle(&mut exports);
        // Those with the most ways to leave something half-done come most often.
        let count = usize::try_from(dice.within(1..4)).unwrap_or(1);
        exports.truncate(count);
        for often in [Place::S3, Place::Sftp] {
            if places.contains(&often) && !exports.contains(&often) && dice.chance(40) {
                exports.push(often);
            }
        }
        // A large file from the web that goes to one place may be sent on while it arrives.
        let is_ahead = import == Import::Url && size >= LARGE.start && dice.chance(50);
        if is_ahead {
            let early: Vec<Place> = places.iter().copied().filter(|place| Place::EARLY.contains(place)).collect();
            exports = vec![*dice.pick(&early)];
            size = dice.within(AHEAD);
        }
        let change = match dice.within(0..100) {
            0..8 => Change::Cancel(dice.within(50..3000)),
            8..14 => Change::Delete(dice.within(50..4000)),
            _ => Change::Nothing,
        };
        Self {
            tag: format!("chaos-{seed:x}-{number:05}"),
            import,
            seed: dice.roll(),
            size,
            exports,
            has_lame_input: dice.chance(10) && !is_ahead,
            sent: if dice.chance(25) { dice.within(2..4) } else { 1 },
            follow: *dice.pick(&[Follow::Ask, Follow::Ask, Follow::Wait, Follow::Stream]),
            change,
            has_webhook: dice.chance(60),
        }
    }

    /// Whether its file is sent on while it arrives, where that is wanted and nothing goes wrong.
    pub(crate) fn may_go_ahead(&self) -> bool {
        let [only] = self.exports.as_slice() else { return false };
        self.import == Import::Url && self.size >= AHEAD.start && Place::EARLY.contains(only) && !self.has_lame_input
    }

    /// The file: text where it is part of a request.
    pub fn content(&self) -> Vec<u8> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        match self.import {
            Import::Raw => {
                let mut text = hex::encode(bytes::pattern(self.seed, size.div_ceil(2)));
                text.truncate(size);
                text.into_bytes()
            }
            Import::Upload | Import::Url | Import::Base64 => bytes::pattern(self.seed, size),
        }
    }

    /// SHA-256 of the file, in lower-case hex.
    pub fn sha256(&self) -> String {
        match self.import {
            Import::Raw => bytes::digest(&self.content()).sha256,
            Import::Upload | Import::Url | Import::Base64 => bytes::digest_pattern(self.seed, self.size).sha256,
        }
    }

    /// The name of a task that exports to this place.
    pub fn task(place: Place) -> String {
        format!("to-{}", place.name())
    }

    /// The name of the object at every place.
    pub fn object(&self) -> String {
        format!("{}.bin", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_jobs_and_every_kind_of_them() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..300).map(|number| Spec::draw(&mut dice, seed, number, &Place::ALL)).collect::<Vec<_>>()
        };
        let jobs = draw(1);
        assert_eq!(jobs, draw(1));
        assert_ne!(jobs, draw(2));
        for place in Place::ALL {
            assert!(jobs.iter().filter(|job| job.exports.contains(&place)).count() > 30, "{place:?}");
        }
        for is_there in [
            (|job| matches!(job.change, Change::Cancel(_))) as fn(&Spec) -> bool,
            |job| matches!(job.change, Change::Delete(_)),
            |job| job.size > LARGE.start,
            |job| job.has_lame_input,
            |job| job.sent > 1,
            |job| job.follow == Follow::Stream,
            |job| job.import == Import::Raw,
            Spec::may_go_ahead,
        ] {
            assert!(jobs.iter().any(is_there));
        }
    }

    #[test]
    fn the_hash_is_that_of_the_content() {
        let mut dice = Dice::new(3);
        for number in 0..20 {
            let spec = Spec::draw(&mut dice, 3, number, &Place::ALL);
            assert_eq!(spec.content().len() as u64, spec.size);
            assert_eq!(bytes::digest(&spec.content()).sha256, spec.sha256());
        }
    }
}
