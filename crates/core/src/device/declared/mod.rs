//! Declared devices: `--gpus SPEC` and `--gpus FILE`.
//!
//! A specification is a list of items: `[COUNT x] CARD [@ USED]`, without spaces, separated by
//! commas.
//!
//! | item | means |
//! | --- | --- |
//! | `H100-80GB`, `8xH100-80GB` | one or eight cards of the [table](cards), with the total that NVML reports for them |
//! | `24GiB`, `2x24576MiB` | a card of that total: no name, compute capability or reserve |
//! | `3g.40gb`, `2xH200:1g.18gb` | MIG instances (of an H100 80GB if no card is named) |
//! | `H100-80GB@30GiB` | a card with 30 GiB in use by others |
//! | `host:64GiB` | available host memory |
//!
//! Names ignore case, spaces, `-` and `_`, and work with or without `NVIDIA`, `GeForce`, `Tesla`.
//! Cards that are sold on NVSwitch boards are declared as linked by NVSwitch, eight at a time
//! (NVL72 kinds: 72).

pub mod cards;
mod error;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::cards::{Card, MIG_PROFILES, MigProfile};
pub use self::error::{DeclaredError, MAX_DEVICES};
use serde::Deserialize;

use super::{Device, DeviceFacts, DeviceKind, HostMemory, Link, LinkKind, Snapshot};
use crate::bytes::Bytes;

/// Returns the assumed driver reserve of a card whose reserve was never observed.
///
/// It is above the largest observed reserves, 609 MiB on cards of up to 48 GiB and 862 MiB on
/// larger ones. So a declared card never has more free memory than a real one.
fn assumed_reserve(total: Bytes) -> Bytes {
    if total <= Bytes::gib(48) {
        Bytes::mib(640)
    } else {
        Bytes::gib(1)
    }
}

/// The start of a declared device's UUID.
const DECLARED: &str = "declared-";

/// Whether a device of this UUID was declared, so that no driver knows it.
pub fn is_declared(uuid: &str) -> bool {
    uuid.starts_with(DECLARED)
}

/// Declared or recorded devices, with the bytes that leases claimed on them at that time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Declared {
    /// The devices.
    #[serde(flatten, deserialize_with = "crate::strict_json::nested")]
    pub snapshot: Snapshot,
    /// Bytes that leases claimed, by UUID.
    #[serde(default, rename = "leased_bytes")]
    pub leased: BTreeMap<String, Bytes>,
}

/// Reads a snapshot as `gpus --json` writes it.
///
/// Time and source stay as recorded, so that answers can be compared.
pub fn from_json(text: &str) -> Result<Declared, DeclaredError> {
    let mut declared: Declared = crate::strict_json::from_str(text)
        .map_err(|error| DeclaredError::Snapshot(error.to_string()))?;
    if declared.snapshot.devices.len() > MAX_DEVICES {
        return Err(DeclaredError::TooMany);
    }

    super::identity::normalize(&mut declared.snapshot.devices);
    Ok(declared)
}

/// Parses a specification into a snapshot taken at `now`.
pub fn parse(spec: &str, now: SystemTime) -> Result<Snapshot, DeclaredError> {
    let mut devices = Vec::new();
    let mut links = Vec::new();
    let mut host = None;

    for item in spec.split(',') {
        let item = item.trim();
        if item.is_empty() {
            return Err(DeclaredError::Empty(spec.to_owned()));
        }

        if let Some((_, memory)) = item
            .split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            let bytes = size(item, memory)?;
            host = Some(HostMemory {
                total_bytes: bytes,
                available_bytes: bytes,
            });
            continue;
        }

        let (count, rest) = count(item)?;
        let (what, used) = match rest.split_once('@') {
            Some((what, used)) => (what, size(item, used)?),
            None => (rest, Bytes::ZERO),
        };

        if devices.len().saturating_add(count) > MAX_DEVICES {
            return Err(DeclaredError::TooMany);
        }

        let declared = declaration(item, what)?;
        let first = devices.len();

        for _ in 0..count {
            devices.push(declared.device(item, devices.len(), used)?);
        }

        if let Declaration::Card(card) = &declared {
            add_board_links(&mut links, devices.get(first..).unwrap_or_default(), card);
        }
    }

    Ok(Snapshot {
        source: "declared".to_owned(),
        sampled_at: whole_milliseconds(now),
        stale: false,
        driver_version: None,
        devices,
        links,
        host,
    })
}

/// Truncates a time to milliseconds, the precision of the written snapshot.
pub fn whole_milliseconds(time: SystemTime) -> SystemTime {
    let Ok(since) = time.duration_since(UNIX_EPOCH) else {
        return UNIX_EPOCH;
    };
    UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000)
}

/// Splits `8xH100`, `8x H100` or `H100x8` into its count and the rest.
///
/// An `x` inside a name has no digits alone before it, and no device before it (`RTX5090`).
fn count(item: &str) -> Result<(usize, &str), DeclaredError> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let before = item
        .split_once(['x', 'X'])
        .map(|(digits, rest)| (digits.trim_end(), rest.trim_start()))
        .filter(|(digits, _)| is_number(digits));
    let after = item
        .rsplit_once(['x', 'X'])
        .map(|(rest, digits)| (digits.trim_start(), rest.trim_end()))
        .filter(|(digits, rest)| is_number(digits) && is_device(rest));

    let Some((digits, rest)) = before.or(after) else {
        return Ok((1, item));
    };

    let count = digits
        .parse()
        .ok()
        .filter(|count| (1..=MAX_DEVICES).contains(count));

    count
        .map(|count| (count, rest))
        .ok_or_else(|| DeclaredError::Count {
            item: item.to_owned(),
        })
}

/// Whether the text alone names a card or a size.
fn is_device(text: &str) -> bool {
    cards::find(text).is_some() || read_size(text).is_some()
}

/// Parses a size of an item.
fn size(item: &str, text: &str) -> Result<Bytes, DeclaredError> {
    read_size(text.trim()).ok_or_else(|| DeclaredError::Size {
        item: item.to_owned(),
        size: text.to_owned(),
    })
}

/// Parses a number of GiB or MiB with up to six decimals.
fn read_size(text: &str) -> Option<Bytes> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match (lower.strip_suffix("gib"), lower.strip_suffix("mib")) {
        (Some(digits), _) => (digits, 1 << 30),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => return None,
    };

    let digits = digits.trim_end();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 6 || whole.is_empty() {
        return None;
    }

    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let number: u64 = format!("{whole}{fraction}").parse().ok()?;

    // No device has sixteen TiB, and the bound keeps all sums far from 2^64.
    Some(Bytes::new(number.checked_mul(unit)? / scale))
        .filter(|bytes| *bytes <= Bytes::gib(16 << 10))
}

/// The device kind of one item.
enum Declaration {
    Card(&'static Card),
    Instance(&'static Card, &'static MigProfile),
    Plain(Bytes),
}

/// Parses the part of an item that names the device.
fn declaration(item: &str, what: &str) -> Result<Declaration, DeclaredError> {
    if let Some((name, profile)) = what.split_once(':') {
        let card = named(item, name)?;
        return instance(item, card, profile);
    }

    if let Some(bytes) = read_size(what) {
        return Ok(Declaration::Plain(bytes));
    }

    if what.starts_with(|first: char| first.is_ascii_digit())
        && what.to_ascii_lowercase().contains("g.")
    {
        return instance(item, named(item, "H100")?, what);
    }

    if resembles_size(what) {
        return Err(DeclaredError::Size {
            item: item.to_owned(),
            size: what.to_owned(),
        });
    }

    named(item, what).map(Declaration::Card)
}

/// Whether the text is a number with an unsupported unit (`24GB`, `24g`, `0.5TB`). It is meant as a
/// size, and is no card.
fn resembles_size(text: &str) -> bool {
    let unit = text.trim_start_matches(|letter: char| {
        letter.is_ascii_digit() || letter == '.' || letter == ' '
    });
    let units = [
        "b", "k", "kb", "kib", "m", "mb", "mi", "g", "gb", "gi", "t", "tb", "tib",
    ];

    text.starts_with(|first: char| first.is_ascii_digit())
        && units.iter().any(|known| unit.eq_ignore_ascii_case(known))
}

/// Looks up a MIG profile of a card.
fn instance(item: &str, card: &'static Card, profile: &str) -> Result<Declaration, DeclaredError> {
    let of_card = || MIG_PROFILES.iter().filter(|known| known.card == card.name);
    of_card()
        .find(|known| known.profile.eq_ignore_ascii_case(profile))
        .map_or_else(
            || {
                let known: Vec<_> = of_card().map(|known| known.profile).collect();
                Err(DeclaredError::UnknownProfile {
                    item: item.to_owned(),
                    card: card.name.to_owned(),
                    profile: profile.to_owned(),
                    known: if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    },
                })
            },
            |found| Ok(Declaration::Instance(card, found)),
        )
}

/// Looks up a card by name.
fn named(item: &str, name: &str) -> Result<&'static Card, DeclaredError> {
    cards::find(name).ok_or_else(|| DeclaredError::UnknownCard {
        item: item.to_owned(),
        card: name.to_owned(),
        nearest: cards::nearest(name)
            .into_iter()
            .map(str::to_owned)
            .collect(),
    })
}

impl Declaration {
    /// Builds the device with index `index` and `used` bytes in use.
    fn device(&self, item: &str, index: usize, used: Bytes) -> Result<Device, DeclaredError> {
        let (name, kind, total_bytes, reserved_bytes) = match self {
            Self::Card(card) if card.unified => (
                card.name.to_owned(),
                DeviceKind::UnifiedMemory,
                card.total,
                Some(Bytes::ZERO),
            ),
            Self::Card(card) => (
                card.name.to_owned(),
                DeviceKind::Gpu,
                card.total,
                card.reserve_mib.map(Bytes::mib),
            ),
            Self::Instance(card, profile) => (
                format!("{} MIG {}", card.name, profile.profile),
                DeviceKind::MigInstance,
                Bytes::mib(profile.total_mib),
                Some(Bytes::ZERO),
            ),
            Self::Plain(total) => (format!("{total} device"), DeviceKind::Gpu, *total, None),
        };

        let facts = DeviceFacts {
            uuid: format!("{DECLARED}{index}"),
            index: u32::try_from(index).map_err(|_| DeclaredError::TooMany)?,
            name,
            kind,
            total_bytes,
            reserved_bytes,
            compute_capability: match self {
                Self::Card(card) | Self::Instance(card, _) => Some(card.compute_capability),
                Self::Plain(_) => None,
            },
            multiprocessors: match self {
                Self::Card(card) => card.multiprocessors,
                Self::Instance(_, profile) => Some(profile.multiprocessors),
                Self::Plain(_) => None,
            },
            parent_uuid: None,
            pci_bus_id: None,
            numa_node: None,
        };

        let reserve = match self {
            Self::Card(_) => reserved_bytes.unwrap_or_else(|| assumed_reserve(total_bytes)),
            Self::Instance(..) | Self::Plain(_) => Bytes::ZERO,
        };

        let most = total_bytes
            .checked_sub(reserve)
            .filter(|most| *most > Bytes::ZERO);
        let free = most.and_then(|most| most.checked_sub(used));

        let free = free.ok_or_else(|| DeclaredError::Full {
            item: item.to_owned(),
            total: total_bytes,
            used,
        })?;

        Ok(Device {
            free_bytes: Some(free),
            used_bytes: Some(used),
            ..Device::idle(facts)
        })
    }
}

/// Links the cards of one item as on their boards: all to all within each board.
fn add_board_links(links: &mut Vec<Link>, devices: &[Device], card: &Card) {
    let Some(fabric) = &card.fabric else { return };
    for board in devices.chunks(fabric.board) {
        for (place, a) in board.iter().enumerate() {
            links.extend(board.iter().skip(place + 1).map(|b| Link {
                a: a.facts.uuid.clone(),
                b: b.facts.uuid.clone(),
                kind: LinkKind::Fabric,
                lanes: Some(fabric.lanes),
                peer_access: Some(true),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_file_has_each_uuid_once() {
        let mut snapshot = parse("2x24GiB", UNIX_EPOCH).unwrap();
        for device in &mut snapshot.devices {
            device.facts.uuid = "GPU-same".to_owned();
        }

        let read = from_json(&serde_json::to_string(&snapshot).unwrap())
            .unwrap()
            .snapshot;
        let usable: Vec<bool> = read
            .devices
            .iter()
            .map(|device| device.unusable.is_none())
            .collect();

        assert_eq!(
            usable,
            [true, false],
            "the same bytes are not placed on twice"
        );
    }

    fn declared(spec: &str) -> Snapshot {
        parse(spec, UNIX_EPOCH).unwrap()
    }

    #[test]
    fn counts_come_first_or_last() {
        for spec in ["2xH100", "2x H100", "2 x H100", "H100x2", "H100 x2"] {
            assert_eq!(declared(spec), declared("2xH100"), "{spec}");
        }
        assert_eq!(declared("24GiBx2"), declared("2x24GiB"));
        assert_eq!(declared("RTX5090").devices.len(), 1);
        assert_eq!(declared("RTX5090x2").devices.len(), 2);
    }

    #[test]
    fn h100_board_is_fully_linked() {
        let snapshot = declared("8xH100-80GB");
        assert_eq!(snapshot.devices.len(), 8);
        assert_eq!(snapshot.links.len(), 28);
        let first = &snapshot.devices[0];
        assert_eq!(first.facts.total_bytes, Bytes::mib(81_559));
        assert_eq!(first.free_bytes, Some(Bytes::mib(81_080)));
        assert_eq!(first.facts.capability(), Some(90));
    }

    #[test]
    fn sizes_are_exact() {
        let snapshot = declared("2x24GiB,1x12GiB");
        let totals: Vec<_> = snapshot
            .devices
            .iter()
            .map(|device| device.facts.total_bytes)
            .collect();

        assert_eq!(totals, [Bytes::gib(24), Bytes::gib(24), Bytes::gib(12)]);
        assert_eq!(snapshot.devices[0].free_bytes, Some(Bytes::gib(24)));
        assert_eq!(snapshot.devices[2].facts.compute_capability, None);
        assert!(snapshot.links.is_empty());

        assert_eq!(
            declared("22.5GiB").devices[0].facts.total_bytes,
            Bytes::mib(23_040)
        );
    }

    #[test]
    fn shared_cards_and_slices() {
        assert_eq!(
            declared("H100@30GiB").devices[0].free_bytes,
            Bytes::mib(81_080).checked_sub(Bytes::gib(30))
        );
        let slice = &declared("2x3g.40gb").devices[1];
        assert_eq!(slice.facts.total_bytes, Bytes::mib(40_448));
        assert_eq!(slice.facts.kind, DeviceKind::MigInstance);

        assert_eq!(
            declared("H200:1g.18gb").devices[0].facts.total_bytes,
            Bytes::mib(16_384)
        );
        assert_eq!(
            declared("GB10").devices[0].facts.kind,
            DeviceKind::UnifiedMemory
        );
    }

    #[test]
    fn names_are_forgiving() {
        for name in [
            "rtx4090",
            "RTX 4090",
            "GeForce RTX 4090",
            "4090",
            "NVIDIA-GeForce-RTX-4090",
            "RTX_4090",
        ] {
            assert_eq!(
                declared(name).devices[0].facts.total_bytes,
                Bytes::mib(24_564),
                "{name}"
            );
        }

        for spec in [
            "RTX PRO 6000",
            "RTX6000-Ada",
            "A6000",
            "A10G",
            "GB200",
            "B300",
            "V100",
            "T4",
            "L4",
            "5090",
        ] {
            assert_eq!(declared(spec).devices.len(), 1, "{spec}");
        }
    }

    #[test]
    fn errors_name_the_fix() {
        let message = |spec: &str| parse(spec, UNIX_EPOCH).unwrap_err().to_string();
        assert!(
            message("8xH10").contains("did you mean `H100"),
            "{}",
            message("8xH10")
        );

        assert!(
            message("RTX-409").contains("did you mean `RTX-4090`, `RTX-4090-D` or `"),
            "{}",
            message("RTX-409")
        );

        assert!(
            message("bogus").starts_with("`bogus`: no card is called `bogus`. A size"),
            "{}",
            message("bogus")
        );

        assert!(message("0xFOO").contains("between 1 and 128"));
        for size in ["24GB", "24g", "24 GB", "0.5TB", "24gi"] {
            assert!(
                message(&format!("T4,2x{size}"))
                    .starts_with(&format!("`2x{size}`: `{size}` is not a size")),
                "{size}"
            );
        }

        assert_eq!(
            declared("24 GiB").devices[0].facts.total_bytes,
            Bytes::gib(24)
        );
        assert!(message("H100:9g.1gb").contains("3g.40gb"));
        assert!(message("A10,,A10").contains("empty"));
        assert!(message("24GiB@25GiB").contains("in use"));
        assert!(message("0GiB").contains("0 B"));
        assert!(message("99999999999999999999GiB").contains("no card"));

        assert_eq!(
            parse("100xT4,100xT4", UNIX_EPOCH).unwrap_err(),
            DeclaredError::TooMany
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_is_safe(spec in ".{0,60}", parts in "([0-9]{1,5}x)?(H100|24GiB|3g[.]40gb|0[.]1MiB)(@[0-9.]{1,8}GiB)?(,.{0,9})?") {
            for text in [spec, parts] {
                if let Ok(snapshot) = parse(&text, UNIX_EPOCH) {
                    proptest::prop_assert!(!snapshot.devices.is_empty() && snapshot.devices.len() <= MAX_DEVICES);
                    for device in &snapshot.devices {
                        let taken = device.free_bytes.unwrap() + device.used_bytes.unwrap();
                        proptest::prop_assert!(taken <= device.facts.total_bytes);
                    }
                }
                let _ = from_json(&text);
            }
        }
    }

    #[test]
    fn snapshot_round_trips() {
        let at = UNIX_EPOCH + Duration::from_nanos(1_790_000_000_123_456_789);
        let text = serde_json::to_string_pretty(&parse("2xH100@1GiB,GB10", at).unwrap()).unwrap();
        let again = serde_json::to_string_pretty(&from_json(&text).unwrap().snapshot).unwrap();
        assert_eq!(text, again);
    }
}
