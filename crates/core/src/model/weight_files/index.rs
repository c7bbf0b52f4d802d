//! The folded index of sharded weights.
//!
//! Tensors whose names differ only in their numbers share one text. The index of a large mixture of
//! experts names about 100 000 tensors with about forty patterns. A map from name to file takes
//! 20 MiB for them. The patterns, with four bytes for each number and each file, take 1 MiB.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Replaces a number in a pattern. [`WeightMapBuilder::add`] rejects names that contain it.
const NUMBER: char = '\0';

/// An index of sharded weights: which file holds which tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Bytes of all tensors' data, if the index states them.
    pub total_bytes: Option<u64>,
    /// The file of each tensor, relative to the index's folder.
    pub weight_map: WeightMap,
}

/// A map from tensor names to file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightMap {
    files: Vec<Arc<str>>,
    families: BTreeMap<Box<str>, NameFamily>,
    tensors: usize,
}

/// The tensors of one pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NameFamily {
    /// Number of numbers in each name.
    numbers: usize,
    /// The concatenated rows in ascending order. A row is the numbers of a name and the position of
    /// its file.
    rows: Vec<u32>,
}

/// A tensor name with a NUL character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a tensor holds a NUL character")]
pub struct InvalidName;

impl WeightMap {
    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.tensors
    }

    /// Returns whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.tensors == 0
    }

    /// Returns the names of all files, each once.
    pub fn files(&self) -> BTreeSet<&str> {
        let rows = self.families.values().flat_map(NameFamily::rows);
        let positions: BTreeSet<u32> = rows.filter_map(|row| row.last().copied()).collect();
        positions
            .into_iter()
            .filter_map(|position| self.file(position))
            .collect()
    }

    /// Returns whether the map has the tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        let Ok((pattern, numbers)) = fold(name) else {
            return false;
        };
        self.families
            .get(pattern.as_str())
            .is_some_and(|family| family.find(&numbers))
    }

    /// Iterates over all names and their files, in no particular order. Each name is allocated.
    pub fn iter(&self) -> impl Iterator<Item = (String, &str)> {
        self.families.iter().flat_map(move |(pattern, family)| {
            family.rows().filter_map(move |row| {
                let (file, numbers) = row.split_last()?;
                Some((unfold(pattern, numbers), self.file(*file)?))
            })
        })
    }

    fn file(&self, position: u32) -> Option<&str> {
        self.files
            .get(usize::try_from(position).ok()?)
            .map(|file| &**file)
    }

    /// Builds a map from pairs of a tensor name and a file name.
    pub fn collect<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, InvalidName> {
        let mut builder = WeightMapBuilder::default();
        for (name, file) in pairs {
            builder.add(name, file)?;
        }
        Ok(builder.finish())
    }
}

impl NameFamily {
    fn width(&self) -> usize {
        self.numbers + 1
    }

    fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.rows.chunks_exact(self.width())
    }

    fn row(&self, position: usize) -> &[u32] {
        let start = position * self.width();
        self.rows
            .get(start..start + self.width())
            .unwrap_or_default()
    }

    fn numbers_of(&self, position: usize) -> &[u32] {
        self.row(position).get(..self.numbers).unwrap_or_default()
    }

    fn find(&self, numbers: &[u32]) -> bool {
        let (mut low, mut high) = (0, self.rows.len() / self.width());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.numbers_of(middle).cmp(numbers) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }

        false
    }

    /// Sorts the rows. The last of several rows with the same numbers remains.
    fn sort(&mut self) {
        let rows = self.rows.len() / self.width();
        let is_sorted = (1..rows).all(|row| self.numbers_of(row - 1) < self.numbers_of(row));
        if is_sorted {
            self.rows.shrink_to_fit();
            return;
        }

        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|left, right| self.numbers_of(*left).cmp(self.numbers_of(*right)));

        let mut sorted = Vec::with_capacity(self.rows.len());
        for (place, &row) in order.iter().enumerate() {
            let is_replaced = order
                .get(place + 1)
                .is_some_and(|&next| self.numbers_of(next) == self.numbers_of(row));
            if !is_replaced {
                sorted.extend_from_slice(self.row(row));
            }
        }

        self.rows = sorted;
    }
}

/// Builds a [`WeightMap`] from names in any order.
#[derive(Debug, Default)]
pub struct WeightMapBuilder {
    files: BTreeMap<Arc<str>, u32>,
    order: Vec<Arc<str>>,
    families: BTreeMap<Box<str>, NameFamily>,
}

impl WeightMapBuilder {
    /// Adds a tensor. The last file of a repeated name counts.
    pub fn add(&mut self, name: &str, file: &str) -> Result<(), InvalidName> {
        let (pattern, numbers) = fold(name)?;
        let file = self.position(file);

        let family = match self.families.get_mut(pattern.as_str()) {
            Some(family) => family,
            None => self.families.entry(pattern.into()).or_default(),
        };

        family.numbers = numbers.len();
        family.rows.extend_from_slice(&numbers);
        family.rows.push(file);

        Ok(())
    }

    /// Returns the map of all added tensors.
    pub fn finish(self) -> WeightMap {
        let Self {
            order: files,
            mut families,
            ..
        } = self;

        families.values_mut().for_each(NameFamily::sort);
        let tensors = families
            .values()
            .map(|family| family.rows.len() / family.width())
            .sum();

        WeightMap {
            files,
            families,
            tensors,
        }
    }

    fn position(&mut self, file: &str) -> u32 {
        if let Some(&position) = self.files.get(file) {
            return position;
        }

        let file: Arc<str> = file.into();

        // An index has fewer than 2^32 files, because each takes more than a byte of its text.
        let position = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        self.order.push(Arc::clone(&file));
        self.files.insert(file, position);

        position
    }
}

/// Returns a name's pattern and the numbers that the pattern replaces.
fn fold(name: &str) -> Result<(String, Vec<u32>), InvalidName> {
    if name.contains(NUMBER) {
        return Err(InvalidName);
    }

    let mut pattern = String::with_capacity(name.len());
    let mut numbers = Vec::new();

    for (place, segment) in name.split('.').enumerate() {
        if place > 0 {
            pattern.push('.');
        }
        match number(segment) {
            Some(number) => {
                pattern.push(NUMBER);
                numbers.push(number);
            }
            None => pattern.push_str(segment),
        }
    }

    Ok((pattern, numbers))
}

/// Returns the name that [`fold`] turned into `pattern` and `numbers`.
fn unfold(pattern: &str, numbers: &[u32]) -> String {
    let mut name = String::with_capacity(pattern.len() + 4 * numbers.len());
    let mut numbers = numbers.iter();
    for (place, text) in pattern.split(NUMBER).enumerate() {
        if place > 0
            && let Some(number) = numbers.next()
        {
            name.push_str(&number.to_string());
        }
        name.push_str(text);
    }

    name
}

/// Parses a segment that is a number without a sign or leading zeros.
fn number(segment: &str) -> Option<u32> {
    let is_plain = segment == "0"
        || (!segment.starts_with('0') && segment.bytes().all(|byte| byte.is_ascii_digit()));
    is_plain.then(|| segment.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> WeightMap {
        WeightMap::collect(pairs.iter().copied()).expect("names")
    }

    #[test]
    fn folded_names_unfold_unchanged() {
        let names = [
            "layers.10.experts.3.w",
            "layers.2.experts.30.w",
            "a.007.b",
            "4294967296.x",
            "0",
            "",
            ".1.",
            "+1.w",
        ];
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (*name, "f")).collect();
        let map = map(&pairs);
        let mut found: Vec<String> = map.iter().map(|(name, _)| name).collect();
        found.sort();
        let mut wanted = names.map(ToOwned::to_owned).to_vec();
        wanted.sort();
        assert_eq!((found, map.len()), (wanted, names.len()));
        assert!(names.iter().all(|name| map.contains(name)));

        assert!(
            ["layers.2.experts.3.w", "a.7.b", "1", "layers"]
                .iter()
                .all(|name| !map.contains(name))
        );
    }

    #[test]
    fn repeated_name_keeps_last_file() {
        let map = map(&[("l.3.w", "a"), ("l.1.w", "b"), ("l.3.w", "c")]);
        let mut found: Vec<(String, &str)> = map.iter().collect();
        found.sort();

        assert_eq!(
            found,
            [("l.1.w".to_owned(), "b"), ("l.3.w".to_owned(), "c")]
        );
        assert_eq!((map.len(), map.files()), (2, BTreeSet::from(["b", "c"])));
    }

    #[test]
    fn name_with_nul_is_rejected() {
        assert_eq!(WeightMap::collect([("a.\0.w", "f")]), Err(InvalidName));
        assert!(!map(&[("a.1.w", "f")]).contains("a.\0.w"));
    }

    #[test]
    fn large_mixture_takes_few_patterns() {
        let mut builder = WeightMapBuilder::default();
        for tensor in 0..100_000_u32 {
            let name = format!(
                "model.layers.{}.mlp.experts.{}.up_proj.weight",
                tensor / 256,
                tensor % 256
            );
            builder
                .add(&name, "model-00001-of-00163.safetensors")
                .expect("a name");
        }

        let map = builder.finish();
        let kept: usize = map
            .families
            .values()
            .map(|family| family.rows.capacity() * 4)
            .sum();

        assert_eq!(
            (map.families.len(), map.files.len(), map.len()),
            (1, 1, 100_000)
        );
        assert!(kept <= 100_000 * 4 * 4, "{kept} bytes");
    }

    proptest! {
        #[test]
        fn maps_agree_with_ordered_ones(
            pairs in proptest::collection::vec(
                ("[a0-9]{0,2}(\\.[w0-9]{0,3}){0,3}", "[f-h]"),
                0..60,
            ),
        ) {
            let pairs: Vec<(&str, &str)> = pairs
                .iter()
                .map(|(name, file)| (name.as_str(), file.as_str()))
                .collect();
            let plain: BTreeMap<&str, &str> = pairs.iter().copied().collect();
            let folded = map(&pairs);
            let found: BTreeMap<String, &str> = folded.iter().collect();
            prop_assert_eq!(folded.len(), plain.len());
            prop_assert!(found.iter().map(|(name, file)| (name.as_str(), *file)).eq(plain.clone()));
            prop_assert!(plain.keys().all(|name| folded.contains(name)));
        }
    }
}
