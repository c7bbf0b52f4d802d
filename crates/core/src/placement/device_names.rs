//! The names by which a question selects devices: UUIDs, indices, PCI addresses.

use crate::device::{DeviceFacts, DeviceKind};

/// Whether `given` names the device, other than by its whole UUID.
///
/// A number is the driver's index, text with a colon a PCI address, and other text the start of a
/// UUID. An index does not name the MIG instances of a GPU: they share the index of their parent.
pub fn is_named(facts: &DeviceFacts, given: &str) -> bool {
    if let Ok(index) = given.parse::<u32>() {
        let is_part = facts.kind == DeviceKind::MigInstance && facts.parent_uuid.is_some();
        return facts.index == index && !is_part;
    }

    if given.contains(':') {
        let address = facts.pci_bus_id.as_deref().map(without_domain);
        return address.is_some_and(|address| address.eq_ignore_ascii_case(without_domain(given)))
            && has_domain(facts, given);
    }

    !given.is_empty() && facts.uuid.starts_with(given)
}

/// Returns bus, device and function of a PCI address: `41:00.0` of `0000:41:00.0`.
fn without_domain(address: &str) -> &str {
    match address.match_indices(':').nth(1) {
        Some(_) => address
            .split_once(':')
            .map_or(address, |(_, function)| function),
        None => address,
    }
}

/// Whether the domain in `given`, if it has one, is the device's.
///
/// Tools write it with 4 or 8 digits.
fn has_domain(facts: &DeviceFacts, given: &str) -> bool {
    let domain = |address: &str| {
        let (domain, function) = address.split_once(':')?;
        function
            .contains(':')
            .then(|| u32::from_str_radix(domain, 16).ok())
    };

    match domain(given) {
        None => true,
        Some(asked) => {
            asked.is_some() && facts.pci_bus_id.as_deref().and_then(domain).flatten() == asked
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::declared;

    fn facts() -> DeviceFacts {
        let snapshot = declared::parse("3xT4", std::time::UNIX_EPOCH).expect("three cards");
        let mut facts = snapshot.devices[2].facts.clone();
        facts.uuid = "GPU-5a41".to_owned();
        facts.pci_bus_id = Some("0000:41:00.0".to_owned());
        facts
    }

    #[test]
    fn device_has_several_names() {
        let facts = facts();
        for given in ["2", "GPU-5a", "0000:41:00.0", "00000000:41:00.0", "41:00.0"] {
            assert!(is_named(&facts, given), "{given}");
        }

        for given in [
            "",
            "0",
            "GPU-6",
            "0001:41:00.0",
            "42:00.0",
            "x:41:00.0",
            ":",
        ] {
            assert!(!is_named(&facts, given), "{given}");
        }
    }

    #[test]
    fn index_names_no_instance() {
        let mut facts = facts();
        facts.kind = DeviceKind::MigInstance;
        facts.parent_uuid = Some("GPU-0".to_owned());
        assert!(!is_named(&facts, "2"));
    }
}
