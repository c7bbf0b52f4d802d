//! The parameters of `enable_group_offload`.
//!
//! Source: diffusers 0.42.1 `pipelines/pipeline_utils.py` (`enable_group_offload`),
//! `hooks/group_offloading.py` (`apply_group_offloading`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::EngineError;
use crate::engines::shared::parameters::Parameters;
use crate::engines::shared::python::literal;

/// The parameters that need `enable_group_offload`.
const DEPENDENT: [&str; 6] = [
    "exclude_modules",
    "num_blocks_per_group",
    "offload_to_disk_path",
    "offload_type",
    "record_stream",
    "use_stream",
];

/// A kind of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupKind {
    /// So many blocks of a list (`block_level`).
    Blocks {
        /// Blocks of a group.
        per_group: u64,
    },
    /// One module (`leaf_level`).
    Leaves,
}

/// When the next group loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// When its turn comes.
    Off,
    /// While one runs (`use_stream`).
    Ahead,
    /// While one runs, and freed groups wait for the stream (`record_stream`).
    Recorded,
}

/// Group offloading of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupOffload {
    pub(super) kind: GroupKind,
    pub(super) stream: Stream,
    /// The folder of the files that hold the groups (`offload_to_disk_path`).
    pub(super) disk_path: Option<String>,
    /// Whether tensors are pinned only as they move (`low_cpu_mem_usage`).
    pins_late: bool,
    /// Parts that stay on the device.
    excluded: Vec<String>,
}

impl GroupOffload {
    /// The group offloading of the question, if it enables any.
    pub(super) fn new(given: &Parameters) -> Result<Option<Self>, EngineError> {
        let names = given.names();
        if given.flag("enable_group_offload")? != Some(true) {
            let dependent = DEPENDENT.iter().find(|name| names.contains(**name));
            if let Some(name) = dependent {
                return Err(given.bad(name, "it needs enable_group_offload=true"));
            }
            return match given.flag("low_cpu_mem_usage")? {
                None | Some(true) => Ok(None),
                Some(false) => Err(given.bad("low_cpu_mem_usage", "its load is not counted")),
            };
        }

        let stream = match (given.flag("use_stream")?, given.flag("record_stream")?) {
            (Some(true), Some(true)) => Stream::Recorded,
            (Some(true), _) => Stream::Ahead,
            (_, Some(true)) => return Err(given.bad("record_stream", "it needs use_stream=true")),
            _ => Stream::Off,
        };

        Ok(Some(Self {
            kind: kind(given, stream)?,
            stream,
            disk_path: given.word("offload_to_disk_path")?.map(str::to_owned),
            pins_late: given.flag("low_cpu_mem_usage")?.unwrap_or(false),
            excluded: excluded(given)?,
        }))
    }

    /// Whether the next group loads while one runs.
    pub(super) fn streamed(&self) -> bool {
        self.stream != Stream::Off
    }

    /// Whether freed groups wait for the stream.
    pub(super) fn recorded(&self) -> bool {
        self.stream == Stream::Recorded
    }

    /// Whether all tensors are pinned from the start.
    pub(super) fn pins_all(&self) -> bool {
        self.streamed() && !self.pins_late && !self.is_on_disk()
    }

    /// Whether files hold the groups.
    pub(super) fn is_on_disk(&self) -> bool {
        self.disk_path.is_some()
    }

    /// Whether the part `name` stays on the device.
    pub(super) fn excludes(&self, name: &str) -> bool {
        self.excluded.iter().any(|excluded| excluded == name)
    }

    /// The arguments by their own names.
    pub(super) fn parameters(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::from([
            ("enable_group_offload".to_owned(), json!(true)),
            ("use_stream".to_owned(), json!(self.streamed())),
            ("record_stream".to_owned(), json!(self.recorded())),
            ("low_cpu_mem_usage".to_owned(), json!(self.pins_late)),
            ("exclude_modules".to_owned(), json!(self.excluded)),
        ]);

        all.extend(
            self.disk_path
                .iter()
                .map(|path| ("offload_to_disk_path".to_owned(), json!(path))),
        );

        match self.kind {
            GroupKind::Blocks { per_group } => {
                all.insert("offload_type".to_owned(), json!("block_level"));
                all.insert("num_blocks_per_group".to_owned(), json!(per_group));
            }
            GroupKind::Leaves => {
                all.insert("offload_type".to_owned(), json!("leaf_level"));
            }
        }

        all
    }

    /// A sentence about what moves.
    pub(super) fn sentence(&self) -> String {
        let what = match self.kind {
            GroupKind::Blocks { per_group } => format!("groups of {per_group} block(s)"),
            GroupKind::Leaves => "single modules".to_owned(),
        };
        let ahead = if self.streamed() {
            ", the next of them ahead"
        } else {
            ""
        };

        format!("enable_group_offload moves {what} to the device as they run{ahead}")
    }

    /// The line of Python that enables it.
    pub(super) fn python(&self) -> String {
        let kind = match self.kind {
            GroupKind::Blocks { per_group } => {
                format!("offload_type=\"block_level\", num_blocks_per_group={per_group}")
            }
            GroupKind::Leaves => "offload_type=\"leaf_level\"".to_owned(),
        };

        let mut line = format!("pipe.enable_group_offload(torch.device(\"cuda\"), {kind}");
        for (name, value) in [
            ("use_stream", self.streamed()),
            ("record_stream", self.recorded()),
            ("low_cpu_mem_usage", self.pins_late),
        ] {
            if value {
                line.push_str(&format!(", {name}=True"));
            }
        }

        if let Some(path) = &self.disk_path {
            line.push_str(&format!(", offload_to_disk_path={}", literal(path)));
        }
        if !self.excluded.is_empty() {
            line.push_str(&format!(", exclude_modules={}", json!(self.excluded)));
        }
        line.push(')');

        line
    }
}

/// Returns the kind of group. With a stream diffusers sets the blocks of a group to 1.
fn kind(given: &Parameters, stream: Stream) -> Result<GroupKind, EngineError> {
    let choice = given.choice("offload_type", &["block_level", "leaf_level"])?;
    let per_group = given.positive("num_blocks_per_group")?;

    match (choice, per_group) {
        (Some("leaf_level"), _) => Ok(GroupKind::Leaves),
        (_, Some(_)) if stream != Stream::Off => Ok(GroupKind::Blocks { per_group: 1 }),
        (_, Some(per_group)) => Ok(GroupKind::Blocks { per_group }),
        (_, None) => Err(given.bad(
            "enable_group_offload",
            "offload_type=block_level needs num_blocks_per_group",
        )),
    }
}

/// Names of parts: a list, or one word with commas.
fn excluded(given: &Parameters) -> Result<Vec<String>, EngineError> {
    if let Some(Value::Array(names)) = given.value("exclude_modules") {
        let words: Option<Vec<String>> = names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect();
        return words.ok_or_else(|| given.bad("exclude_modules", "must be a list of names"));
    }

    let word = given.word("exclude_modules")?.unwrap_or_default();
    let names = word.split(',').map(str::trim);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}
