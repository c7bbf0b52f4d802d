//! Launch arguments: a command with its flags, and the environment that selects its devices.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::engines::LaunchPlan;

/// A command and its arguments, in order.
#[derive(Debug)]
pub(crate) struct LaunchArguments {
    arguments: Vec<String>,
}

impl LaunchArguments {
    /// Arguments that begin with `words`.
    pub(crate) fn new(words: &[&str]) -> Self {
        Self {
            arguments: words.iter().copied().map(str::to_owned).collect(),
        }
    }

    /// Appends `--name value`.
    pub(crate) fn flag(&mut self, name: &str, value: &(impl Display + ?Sized)) {
        self.arguments
            .extend([format!("--{name}"), value.to_string()]);
    }

    /// Appends `--name value` if there is a value.
    pub(crate) fn optional_flag(&mut self, name: &str, value: Option<&impl Display>) {
        if let Some(value) = value {
            self.flag(name, value);
        }
    }

    /// Appends `--name` if `on`.
    pub(crate) fn switch(&mut self, name: &str, on: bool) {
        if on {
            self.arguments.push(format!("--{name}"));
        }
    }

    /// Appends `arguments` as they are.
    pub(crate) fn extend(&mut self, arguments: &[String]) {
        self.arguments.extend_from_slice(arguments);
    }

    /// The command and its arguments.
    pub(crate) fn into_vec(self) -> Vec<String> {
        self.arguments
    }
}

/// The environment that makes CUDA see the devices of `plan`, in the plan's order.
pub(crate) fn cuda_environment(plan: &LaunchPlan<'_>) -> BTreeMap<String, String> {
    let uuids: Vec<&str> = plan
        .devices
        .iter()
        .map(|device| &*device.facts.uuid)
        .collect();

    BTreeMap::from([
        ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
        ("CUDA_VISIBLE_DEVICES".to_owned(), uuids.join(",")),
    ])
}
