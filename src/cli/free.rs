//! `free`: one whole number for programs that compare numbers.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::placement::{Available, availability};
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use serde::{Deserialize, Serialize};

use super::arguments::{FreeArguments, Unit};
use super::gpus;
use super::output::Output;
use crate::api::status::GpusAnswer;

/// What `--json` prints.
#[derive(Serialize, Deserialize)]
struct Room {
    schema_version: u32,
    uuid: String,
    free_bytes: Bytes,
    leased_bytes: Bytes,
    margin_bytes: Bytes,
    available_bytes: Bytes,
}

/// Prints what can be given on one device, by a reading that begins now: whoever compares numbers
/// has often just ended the program that held the memory, or started one that takes it. What is not
/// known is a failure, never 0: whoever reads 0 takes it for full.
pub(super) fn run(arguments: &FreeArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    match find(arguments) {
        Ok(room) => {
            output.data(&room, |room| {
                format!("{}\n", whole(room.available_bytes, arguments.unit))
            });
            Reason::Fits.exit_code()
        }
        Err(problem) => output.problem(&problem),
    }
}

fn find(arguments: &FreeArguments) -> Result<Room, Problem> {
    room(
        &gpus::now(
            &arguments.here,
            &arguments.connection,
            arguments.gpus.as_deref(),
        )?,
        arguments.gpu.as_deref(),
    )
}

fn room(answer: &GpusAnswer, wanted: Option<&str>) -> Result<Room, Problem> {
    if answer.snapshot.stale {
        let detail = "the driver does not answer; what it said before may no longer hold";
        return Err(
            Problem::new(Reason::NvmlUnavailable, detail).hint("`hf-mem-probe health` may say why")
        );
    }

    let leased = answer
        .leased_bytes
        .iter()
        .map(|(uuid, bytes)| (uuid.clone(), Bytes::new(*bytes)))
        .collect();
    let devices = availability(&answer.snapshot, &leased).devices;
    let device = pick(&devices, wanted)?;
    if let Some(unusable) = &device.unusable {
        let detail = format!(
            "{} cannot be used ({}): {}",
            device.facts.uuid, unusable.reason, unusable.message
        );
        return Err(Problem::new(Reason::NoDevices, detail));
    }

    let (Some(free_bytes), Some(available_bytes)) = (device.free, device.available) else {
        let detail = format!("the free memory of {} is not known", device.facts.uuid);
        return Err(
            Problem::new(Reason::NvmlUnavailable, detail).hint("`hf-mem-probe health` may say why")
        );
    };

    Ok(Room {
        schema_version: answer.schema_version,
        uuid: device.facts.uuid.clone(),
        free_bytes,
        leased_bytes: device.leased,
        margin_bytes: device.margin,
        available_bytes,
    })
}

/// The device that `wanted` names: by its UUID or index; the only one when none is named.
fn pick<'a>(devices: &'a [Available], wanted: Option<&str>) -> Result<&'a Available, Problem> {
    let usage = |detail: String| {
        Problem::new(Reason::Usage, detail).hint("`hf-mem-probe gpus` lists the devices")
    };

    let Some(wanted) = wanted else {
        return match devices {
            [only] => Ok(only),
            [] => Err(Problem::new(Reason::NoDevices, "there is no device")),
            more => Err(usage(format!(
                "there are {} devices: name one with --gpu UUID",
                more.len()
            ))),
        };
    };

    let named = |device: &&Available| {
        device.facts.uuid == wanted || device.facts.index.to_string() == wanted
    };

    let mut found = devices.iter().filter(named);
    match (found.next(), found.next()) {
        (Some(device), None) => Ok(device),
        (None, _) => Err(usage(format!("there is no device {wanted}"))),
        (Some(_), Some(_)) => Err(usage(format!(
            "more than one device is called {wanted}: give its UUID"
        ))),
    }
}

/// In whole units, rounded down: never more than there is.
fn whole(bytes: Bytes, unit: Unit) -> u64 {
    bytes.get() / unit.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_without_doubt_or_not_at_all() {
        let snapshot =
            crate::devices::snapshot_file::resolve("2x24GiB", std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .snapshot;
        let devices = availability(&snapshot, &std::collections::BTreeMap::new()).devices;

        let uuid =
            |wanted: Option<&str>| pick(&devices, wanted).map(|device| device.facts.uuid.clone());
        assert_eq!(uuid(Some("1")).unwrap(), devices[1].facts.uuid);

        assert_eq!(
            uuid(Some(&devices[0].facts.uuid)).unwrap(),
            devices[0].facts.uuid
        );
        assert_eq!(uuid(None).unwrap_err().reason, Reason::Usage);
        assert_eq!(uuid(Some("2")).unwrap_err().reason, Reason::Usage);
        assert_eq!(pick(&[], None).unwrap_err().reason, Reason::NoDevices);

        assert_eq!(
            pick(&devices[..1], None).unwrap().facts.uuid,
            devices[0].facts.uuid
        );
    }

    #[test]
    fn a_reading_that_may_no_longer_hold_is_no_figure() {
        let snapshot =
            crate::devices::snapshot_file::resolve("24GiB", std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .snapshot;
        let leased_bytes = std::collections::BTreeMap::new();
        let mut answer = GpusAnswer {
            schema_version: 1,
            snapshot,
            leased_bytes,
        };

        assert_eq!(
            room(&answer, None).unwrap().available_bytes,
            Bytes::new(24 << 30)
        );
        answer.snapshot.stale = true;

        assert_eq!(
            room(&answer, None).err().unwrap().reason,
            Reason::NvmlUnavailable
        );
    }

    #[test]
    fn units_round_down() {
        let bytes = Bytes::new((3 << 30) - 1);
        assert_eq!(
            [Unit::B, Unit::KiB, Unit::MiB, Unit::GiB].map(|unit| whole(bytes, unit)),
            [(3 << 30) - 1, (3 << 20) - 1, (3 << 10) - 1, 2]
        );
    }
}
