//! The layers of a stack, whose variables differ from those of layer 0 only in their names.

use super::cursor::Variable;

/// Numbers of layers of published Whisper models and their distilled variants, the largest first.
const PUBLISHED_LAYERS: [u32; 8] = [32, 24, 16, 12, 8, 6, 4, 2];

/// The variables of layer 0 of one stack.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstLayer {
    /// The beginning of the names in all layers: `decoder/layer_`.
    prefix: String,
    /// The variables; their names lack the prefix and the layer's number.
    variables: Vec<Variable>,
    /// Whether the number of layers was guessed already.
    is_used: bool,
}

/// A variable's name in a layer: the stack's prefix, the layer's number, and the rest.
struct LayerName<'n> {
    prefix: &'n str,
    layer: u32,
    rest: &'n str,
}

impl<'n> LayerName<'n> {
    fn parse(name: &'n str) -> Option<Self> {
        let at = name.find("/layer_")?.checked_add("/layer_".len())?;
        let (prefix, numbered) = name.split_at_checked(at)?;
        let (digits, _) = numbered.split_once('/')?;
        let rest = numbered.get(digits.len()..)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());

        Some(Self {
            prefix,
            layer: is_number.then(|| digits.parse().ok()).flatten()?,
            rest,
        })
    }
}

impl FirstLayer {
    /// Records a variable of layer 0. Variables of other layers and of no layer are ignored.
    pub(super) fn record(&mut self, variable: &Variable) {
        let Some(name) = LayerName::parse(&variable.name).filter(|name| name.layer == 0) else {
            return;
        };

        if self.prefix != name.prefix {
            *self = Self {
                prefix: name.prefix.to_owned(),
                ..Self::default()
            };
        }

        self.variables.push(Variable {
            name: name.rest.to_owned(),
            ..variable.clone()
        });
    }

    /// Whether `variable` begins layer 1 of the recorded stack, as the end of a whole layer 0.
    pub(super) fn ends_at(&self, variable: &Variable) -> bool {
        let Some(first) = self.variables.first().filter(|_| !self.is_used) else {
            return false;
        };

        LayerName::parse(&variable.name).is_some_and(|name| {
            name.prefix == self.prefix && name.layer == 1 && name.rest == first.name
        })
    }

    /// The numbers of layers to try, and forgets to try them again.
    pub(super) fn guesses(&mut self, variables_left: u32) -> Vec<u32> {
        self.is_used = true;
        let has_room = |layers: &u32| {
            let more = u64::from(layers.saturating_sub(1));
            more.saturating_mul(self.variables.len() as u64) <= u64::from(variables_left)
        };

        PUBLISHED_LAYERS.into_iter().filter(has_room).collect()
    }

    /// Bytes of layers 1 to `layers - 1`.
    pub(super) fn bytes_of_others(&self, layers: u32) -> u64 {
        let others = (1..layers).flat_map(|layer| self.of_layer(layer));
        others
            .map(|variable| variable.header_bytes.saturating_add(variable.data_bytes))
            .fold(0, u64::saturating_add)
    }

    /// The variables of layer `layer`.
    pub(super) fn of_layer(&self, layer: u32) -> impl Iterator<Item = Variable> {
        let number = layer.to_string();
        // The recorded header has a number of one digit.
        let longer = number.len().saturating_sub(1) as u64;
        let prefix = self.prefix.clone();

        self.variables.iter().map(move |variable| Variable {
            name: format!("{prefix}{number}{}", variable.name),
            header_bytes: variable.header_bytes.saturating_add(longer),
            ..variable.clone()
        })
    }

    /// Whether `variable` is what follows the last layer: no further layer of the stack.
    pub(super) fn is_followed_by(&self, variable: &Variable) -> bool {
        LayerName::parse(&variable.name).is_none_or(|name| name.prefix != self.prefix)
            && variable.name.as_str() > self.prefix.as_str()
    }
}
