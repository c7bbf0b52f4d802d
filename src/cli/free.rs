//! `free`: prints the available memory of one GPU as a whole number.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::placement::{Available, availability, is_named};
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use serde::{Deserialize, Serialize};

use super::arguments::{FreeArguments, Unit};
use super::gpus;
use super::output::Output;
use crate::api::status::GpusAnswer;

/// The output of `free --json`.
#[derive(Serialize, Deserialize)]
struct FreeReport {
    schema_version: u32,
    uuid: String,
    free_bytes: Bytes,
    leased_bytes: Bytes,
    margin_bytes: Bytes,
    available_bytes: Bytes,
}

/// Runs `free`.
///
/// Waits for a reading that begins now, because a script often calls it right after it has stopped
/// or started a GPU program. An unknown figure is a failure and never 0: a script would take 0 for
/// a full GPU.
pub(super) fn run(arguments: &FreeArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    match read(arguments) {
        Ok(report) => {
            output.data(&report, |report| {
                format!("{}\n", whole_units(report.available_bytes, arguments.unit))
            });
            Reason::Fits.exit_code()
        }
        Err(problem) => output.problem(&problem),
    }
}

fn read(arguments: &FreeArguments) -> Result<FreeReport, Problem> {
    report(
        &gpus::read_now(
            &arguments.host,
            &arguments.connection,
            arguments.gpus.as_deref(),
        )?,
        arguments.on.as_deref(),
    )
}

fn report(answer: &GpusAnswer, wanted: Option<&str>) -> Result<FreeReport, Problem> {
    if answer.snapshot.stale {
        let detail = "the driver does not answer, and its last reading may be out of date";
        return Err(Problem::new(Reason::NvmlUnavailable, detail).hint("run `hf-mem-probe health`"));
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
        let detail = format!("the free memory of {} is unknown", device.facts.uuid);
        return Err(Problem::new(Reason::NvmlUnavailable, detail).hint("run `hf-mem-probe health`"));
    };

    Ok(FreeReport {
        schema_version: answer.schema_version,
        uuid: device.facts.uuid.clone(),
        free_bytes,
        leased_bytes: device.leased,
        margin_bytes: device.margin,
        available_bytes,
    })
}

/// Returns the device that `wanted` names, or the only device without `wanted`.
fn pick<'a>(devices: &'a [Available], wanted: Option<&str>) -> Result<&'a Available, Problem> {
    let Some(wanted) = wanted else {
        return match devices {
            [only] => Ok(only),
            [] => Err(Problem::new(Reason::NoDevices, "no GPU found")),
            more => Err(usage_problem(format!(
                "found {} GPUs: choose one with --on UUID",
                more.len()
            ))),
        };
    };

    if let Some(exact) = devices.iter().find(|device| device.facts.uuid == wanted) {
        return Ok(exact);
    }

    let mut found = devices
        .iter()
        .filter(|device| is_named(&device.facts, wanted));

    match (found.next(), found.next()) {
        (Some(device), None) => Ok(device),
        (None, _) => Err(usage_problem(format!("GPU {wanted} was not found"))),
        (Some(_), Some(_)) => Err(usage_problem(format!(
            "more than one GPU is named {wanted}: choose one by its UUID"
        ))),
    }
}

fn usage_problem(detail: String) -> Problem {
    Problem::new(Reason::Usage, detail).hint("run `hf-mem-probe gpus` to list the GPUs")
}

/// Returns `bytes` in whole units, rounded down.
fn whole_units(bytes: Bytes, unit: Unit) -> u64 {
    bytes.get() / unit.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_device_is_rejected() {
        let snapshot =
            crate::devices::snapshot_file::resolve("2x24GiB", std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .snapshot;
        let devices = availability(&snapshot, &std::collections::BTreeMap::new()).devices;

        let pick_uuid =
            |wanted: Option<&str>| pick(&devices, wanted).map(|device| device.facts.uuid.clone());
        assert_eq!(pick_uuid(Some("1")).unwrap(), devices[1].facts.uuid);

        assert_eq!(
            pick_uuid(Some(&devices[0].facts.uuid)).unwrap(),
            devices[0].facts.uuid
        );
        assert_eq!(pick_uuid(None).unwrap_err().reason, Reason::Usage);
        assert_eq!(pick_uuid(Some("2")).unwrap_err().reason, Reason::Usage);
        assert_eq!(pick(&[], None).unwrap_err().reason, Reason::NoDevices);

        assert_eq!(
            pick(&devices[..1], None).unwrap().facts.uuid,
            devices[0].facts.uuid
        );
    }

    #[test]
    fn stale_reading_is_an_error() {
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
            report(&answer, None).unwrap().available_bytes,
            Bytes::new(24 << 30)
        );
        answer.snapshot.stale = true;

        assert_eq!(
            report(&answer, None).err().unwrap().reason,
            Reason::NvmlUnavailable
        );
    }

    #[test]
    fn units_round_down() {
        let bytes = Bytes::new((3 << 30) - 1);
        assert_eq!(
            [Unit::B, Unit::KiB, Unit::MiB, Unit::GiB].map(|unit| whole_units(bytes, unit)),
            [(3 << 30) - 1, (3 << 20) - 1, (3 << 10) - 1, 2]
        );
    }
}
