//! Bounds of fields on the wire. The routes enforce them and the OpenAPI document states them.

use std::ops::RangeInclusive;

use hf_mem_core::report::Problem;
use hf_mem_core::report::bounded::MAX_PARTS;
use hf_mem_core::report::problem::Reason;

/// The longest id in a path or a request-id header.
pub const MAX_ID_BYTES: usize = 64;

/// The longest name of a branch, tag or commit.
pub const MAX_REVISION_BYTES: u64 = 255;

/// The longest path of a file in its repository.
pub const MAX_FILE_BYTES: u64 = 1024;

/// The longest name of a lease's holder. Every journal line about the lease contains it.
pub const MAX_HOLDER_BYTES: u64 = 128;

/// The longest idempotency key.
pub const MAX_KEY_BYTES: u64 = 512;

/// How many seconds the driver can stay released: enough for a reset or a change of MIG. An
/// operator who needs longer stops the daemon.
pub const RELEASE_SECONDS: RangeInclusive<u64> = 1..=3600;

/// The most questions in one batch. The daemon plans each against all devices.
pub const MAX_QUESTIONS: usize = 64;

/// The most parts of all questions of a batch together.
pub const MAX_BATCH_PARTS: usize = 4 * MAX_PARTS;

/// Rejects control characters in `text`, the value of `field`: the text ends up in other users'
/// terminals, logs and files.
pub fn reject_control_characters(field: &str, text: &str) -> Result<(), Problem> {
    match text.chars().find(|letter| letter.is_control()) {
        None => Ok(()),
        Some(letter) => {
            let detail = format!(
                "`{field}` holds the control character {}",
                letter.escape_unicode()
            );
            Err(Problem::new(Reason::Usage, detail)
                .hint("use only letters, digits, spaces and punctuation in names and keys"))
        }
    }
}
