//! The walk from header to header of a `model.bin`, through windows that the caller reads.

use super::cursor::{Variable, VariableCursor, VariableStop};
use super::repeated_layers::FirstLayer;
use super::{ModelBin, ModelBinError, NEWEST_BINARY_VERSION, WHISPER_SPEC, bounded, tensor_name};
use crate::bytes::Bytes;
use crate::model::metadata::MAX_CLASSES;
use crate::model::tensors::{InventoryBuilder, Storage};
use crate::model::{Dtype, Inventory};

/// Maximum number of variables. The largest Whisper model has some 2000.
const MAX_VARIABLES: u64 = 20_000;
/// Maximum number of aliases, and of whole numbers that are kept.
const MAX_NAMES: u64 = 1024;
/// Length of a window where reads cost little: a header and the small variables around it.
const SMALL_WINDOW_BYTES: u64 = 16 << 10;
/// Length of a window where each read is a request.
const LARGE_WINDOW_BYTES: u64 = 64 << 10;

/// How headers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Each one.
    EveryHeader,
    /// Those of layer 0 of each stack. The others are predicted, and their end is checked.
    Predicted,
}

/// A part of the file to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Offset in the file.
    pub start: u64,
    /// Length; never 0, and never beyond the file.
    pub bytes: u64,
}

/// The result of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Walked {
    /// The model apart from its tensors.
    pub model: ModelBin,
    /// The tensors. For a specification that is not understood, one tensor as large as the file.
    pub inventory: Inventory,
    /// Number of headers that were read.
    pub read: u32,
    /// Number of variables.
    pub variables: u32,
    /// Whether the specification is one whose variables were read.
    pub is_understood: bool,
    /// Bytes behind the last alias.
    pub uncovered_bytes: u64,
}

/// A walk over a file's variables.
#[derive(Clone, Debug)]
pub struct Walk {
    length: u64,
    reading: Reading,
    position: u64,
    stage: WalkStage,
    model: ModelBin,
    builder: InventoryBuilder,
    first: FirstLayer,
    read: u32,
    variables: u32,
}

/// The next item in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WalkStage {
    /// Version, specification, revision and the number of variables.
    Preamble,
    /// This many variables.
    Variables(u32),
    /// The end of a stack, if it has the last of these numbers of layers.
    Guess { left: u32, layers: Vec<u32> },
    /// The number of aliases.
    AliasCount,
    /// This many aliases.
    Aliases(u32),
    /// Nothing.
    End,
    /// Variables of a specification that is not understood.
    NotUnderstood,
}

impl Walk {
    /// Begins at the start of a file of `length` bytes.
    pub fn new(length: u64, reading: Reading) -> Self {
        Self {
            length,
            reading,
            position: 0,
            stage: WalkStage::Preamble,
            model: ModelBin::default(),
            builder: InventoryBuilder::default(),
            first: FirstLayer::default(),
            read: 0,
            variables: 0,
        }
    }

    /// The part of the file that [`Walk::feed`] needs next; `None` at the end of the walk.
    pub fn window(&self) -> Option<Window> {
        let start = match &self.stage {
            WalkStage::End | WalkStage::NotUnderstood => return None,
            WalkStage::Guess { layers, .. } => self.end_of_stack(layers.last().copied()?),
            _ => self.position,
        };
        let bytes = match self.reading {
            Reading::EveryHeader => SMALL_WINDOW_BYTES,
            Reading::Predicted => LARGE_WINDOW_BYTES,
        };

        // A file that ends here is too short: one byte before its end shows that.
        let start = start.min(self.length.saturating_sub(1));
        Some(Window {
            start,
            bytes: bytes.min(self.length.saturating_sub(start)).max(1),
        })
    }

    /// Parses what [`Walk::window`] asked for. Fewer bytes mean that the file is shorter than
    /// stated.
    pub fn feed(&mut self, window: &[u8]) -> Result<(), ModelBinError> {
        let Some(Window { start, bytes }) = self.window() else {
            return Ok(());
        };
        let is_whole = window.len() as u64 >= bytes;
        let before = (self.position, self.stage.clone());

        while let Some(rest) = self.rest_of(window, start) {
            match self.step(rest) {
                Ok(()) => {}
                Err(VariableStop::Bad(error)) => return Err(error),
                Err(VariableStop::Short) => break,
            }

            if matches!(
                self.stage,
                WalkStage::End | WalkStage::NotUnderstood | WalkStage::Guess { .. }
            ) {
                return Ok(());
            }
        }

        // A window holds more than any item, so only the file's end can interrupt one.
        let is_stuck = before == (self.position, self.stage.clone());
        if is_stuck || !is_whole {
            return Err(self.truncated("the next header", self.position.saturating_add(1)));
        }

        Ok(())
    }

    /// The inventory and the rest of the model, at the end of the walk.
    pub fn finish(self) -> Result<Walked, ModelBinError> {
        let is_understood = match self.stage {
            WalkStage::End => true,
            WalkStage::NotUnderstood => false,
            _ => return Err(self.truncated("the next header", self.position.saturating_add(1))),
        };

        let mut builder = self.builder;
        if !is_understood {
            let storage = Storage::Unknown("ctranslate2".into());
            builder.add("", "variables", storage, &[], Bytes::new(self.length));
        }

        Ok(Walked {
            model: self.model,
            inventory: builder.finish(),
            read: self.read,
            variables: self.variables,
            is_understood,
            uncovered_bytes: if is_understood {
                self.length.saturating_sub(self.position)
            } else {
                0
            },
        })
    }

    /// The bytes of `window` from the next item on; `None` if it is elsewhere.
    fn rest_of<'w>(&self, window: &'w [u8], start: u64) -> Option<&'w [u8]> {
        let next = match &self.stage {
            WalkStage::Guess { layers, .. } => self.end_of_stack(layers.last().copied()?),
            _ => self.position,
        };
        let skipped = usize::try_from(next.checked_sub(start)?).ok()?;

        window.get(skipped..)
    }

    /// Reads the next item, which begins with `bytes`.
    fn step(&mut self, bytes: &[u8]) -> Result<(), VariableStop> {
        match self.stage.clone() {
            WalkStage::Preamble => self.preamble(bytes),
            WalkStage::Variables(0) => {
                self.stage = if self.model.binary_version >= 3 {
                    WalkStage::AliasCount
                } else {
                    WalkStage::End
                };
                Ok(())
            }
            WalkStage::Variables(left) => self.variable(bytes, left),
            WalkStage::Guess { left, layers } => self.guess(bytes, left, layers),
            WalkStage::AliasCount => self.alias_count(bytes),
            WalkStage::Aliases(left) => self.alias(bytes, left),
            WalkStage::End | WalkStage::NotUnderstood => Ok(()),
        }
    }

    fn preamble(&mut self, bytes: &[u8]) -> Result<(), VariableStop> {
        let mut cursor = VariableCursor::new(bytes, self.position);
        let binary_version = cursor.u32()?;
        if !(2..=NEWEST_BINARY_VERSION).contains(&binary_version) {
            return Err(ModelBinError::BinaryVersion(binary_version).into());
        }

        let spec = cursor.name()?.to_owned();
        let revision = cursor.u32()?;
        let variables = cursor.u32()?;
        bounded(variables.into(), "variables", MAX_VARIABLES)?;

        self.stage = if spec == WHISPER_SPEC {
            WalkStage::Variables(variables)
        } else {
            WalkStage::NotUnderstood
        };
        self.variables = variables;
        self.position = cursor.offset();
        self.model = ModelBin {
            binary_version,
            spec,
            revision,
            ..ModelBin::default()
        };

        Ok(())
    }

    fn variable(&mut self, bytes: &[u8], left: u32) -> Result<(), VariableStop> {
        let mut cursor = VariableCursor::new(bytes, self.position);
        let variable = cursor.variable(self.model.binary_version)?;

        if self.reading == Reading::Predicted && self.first.ends_at(&variable) {
            let mut layers = self.first.guesses(left);
            layers.retain(|layers| self.end_of_stack(*layers) < self.length);
            layers.reverse();
            if !layers.is_empty() {
                self.stage = WalkStage::Guess { left, layers };
                return Ok(());
            }
        }

        if variable.shape.is_empty() {
            let value = cursor.take(usize::try_from(variable.data_bytes).unwrap_or(usize::MAX))?;
            self.keep_attribute(&variable, value);
        }

        self.read = self.read.saturating_add(1);
        self.first.record(&variable);
        self.add(&variable)?;
        self.stage = WalkStage::Variables(left.saturating_sub(1));

        Ok(())
    }

    /// Checks whether `bytes` begin with the variable behind a stack with the last of `layers`.
    fn guess(&mut self, bytes: &[u8], left: u32, mut layers: Vec<u32>) -> Result<(), VariableStop> {
        let Some(guessed) = layers.pop() else {
            self.stage = WalkStage::Variables(left);
            return Ok(());
        };

        let end = self.end_of_stack(guessed);
        let is_end = VariableCursor::new(bytes, end)
            .variable(self.model.binary_version)
            .is_ok_and(|variable| self.first.is_followed_by(&variable));
        if !is_end {
            self.stage = if layers.is_empty() {
                WalkStage::Variables(left)
            } else {
                WalkStage::Guess { left, layers }
            };
            return Ok(());
        }

        let mut left = left;
        let first = std::mem::take(&mut self.first);
        for variable in (1..guessed).flat_map(|layer| first.of_layer(layer)) {
            self.add(&variable)?;
            left = left.saturating_sub(1);
        }

        self.stage = WalkStage::Variables(left);
        Ok(())
    }

    fn alias_count(&mut self, bytes: &[u8]) -> Result<(), VariableStop> {
        let mut cursor = VariableCursor::new(bytes, self.position);
        let aliases = cursor.u32()?;
        bounded(aliases.into(), "aliases", MAX_NAMES)?;

        self.position = cursor.offset();
        self.stage = if aliases == 0 {
            WalkStage::End
        } else {
            WalkStage::Aliases(aliases)
        };

        Ok(())
    }

    fn alias(&mut self, bytes: &[u8], left: u32) -> Result<(), VariableStop> {
        let mut cursor = VariableCursor::new(bytes, self.position);
        let (alias, name) = (cursor.name()?.to_owned(), cursor.name()?.to_owned());

        self.position = cursor.offset();
        self.model.aliases.insert(alias, name);
        self.stage = match left.saturating_sub(1) {
            0 => WalkStage::End,
            left => WalkStage::Aliases(left),
        };

        Ok(())
    }

    /// Counts `variable`, and moves behind its data.
    fn add(&mut self, variable: &Variable) -> Result<(), VariableStop> {
        let end = self
            .position
            .checked_add(variable.header_bytes)
            .and_then(|data| data.checked_add(variable.data_bytes))
            .filter(|end| *end <= self.length);
        let Some(end) = end else {
            let needs = self.position.saturating_add(variable.data_bytes);
            return Err(self.truncated(&variable.name, needs).into());
        };

        self.position = end;
        self.builder.add(
            "",
            &tensor_name(&variable.name),
            Storage::Known(variable.dtype),
            &variable.shape,
            Bytes::new(variable.data_bytes),
        );

        let (kinds, limit) = (self.builder.classes() as u64, MAX_CLASSES as u64);
        bounded(kinds, "kinds of tensors", limit)?;

        Ok(())
    }

    /// Keeps the value of a whole number.
    fn keep_attribute(&mut self, variable: &Variable, value: &[u8]) {
        let number = match (variable.dtype, value) {
            (Dtype::I8, [byte]) => i64::from(i8::from_le_bytes([*byte])),
            (Dtype::I16, &[low, high]) => i64::from(i16::from_le_bytes([low, high])),
            (Dtype::I32, &[a, b, c, d]) => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => return,
        };

        if (self.model.attributes.len() as u64) < MAX_NAMES {
            self.model.attributes.insert(variable.name.clone(), number);
        }
    }

    /// The position behind a stack of `layers` layers, of which layer 0 ends here.
    fn end_of_stack(&self, layers: u32) -> u64 {
        self.position
            .saturating_add(self.first.bytes_of_others(layers))
    }

    fn truncated(&self, what: &str, needs: u64) -> ModelBinError {
        ModelBinError::Truncated {
            what: what.to_owned(),
            needs,
            has: self.length,
        }
    }
}
