//! The devices of a placement: one line each, with a bar of its memory.

use hf_mem_core::engines::ComponentName;
use hf_mem_core::report::answer::{DeviceShare, PlacementAnswer, Verdict};

use super::bar::{BarParts, Cells, LEGEND, cells};
use super::figure::figure;
use super::headline::short_name;
use super::page::{Page, PageLayout, Signs, Tone};
use super::wrapped_to;

/// The columns of a bar: fewer drop the device's name, more add nothing.
const BAR: std::ops::RangeInclusive<usize> = 16..=60;
/// Devices above which equal neighbors share a line.
const MAX_SINGLE_LINES: usize = 4;

/// The blocks of a bar in Unicode, in the order of [`LEGEND`].
const BLOCKS: [char; LEGEND.len()] = ['▚', '▞', '█', '▓', '▒', '░'];

/// A line for a device, or for neighbors in the same state.
struct DeviceLine<'a> {
    share: &'a DeviceShare,
    label: String,
    name: String,
    note: String,
}

/// Appends a line per device and the legend of their bars.
pub(super) fn device_bars(
    page: &mut Page,
    placement: &PlacementAnswer,
    verdict: Option<Verdict>,
    layout: PageLayout,
) {
    let lines = lines(&placement.devices);
    let label = widest(lines.iter().map(|line| &line.label));
    let note = widest(lines.iter().map(|line| &line.note));
    let name = widest(lines.iter().map(|line| &line.name));

    // Two columns before each part, and the brackets of an ASCII bar.
    let brackets = layout.signs.choose(0, 2);
    let room = layout.columns.saturating_sub(6 + brackets + label + note);
    let with_name = room.saturating_sub(name + 2);
    let shows_name = with_name >= *BAR.start();
    let width = if shows_name { with_name } else { room }.clamp(4, *BAR.end());

    let mut seen = [false; LEGEND.len()];
    for line in &lines {
        let cells = cells(&bar_parts(line.share), width);
        for (seen, count) in seen.iter_mut().zip(cells.counts) {
            *seen |= count > 0;
        }

        page.push(Tone::Plain, format!("  {:<label$}  ", line.label));
        if shows_name {
            page.push(Tone::Plain, format!("{:<name$}  ", line.name));
        }
        push_bar(page, &cells, layout.signs);
        page.push(
            note_tone(line.share, verdict),
            format!("  {:>note$}", line.note),
        );
        page.end_line();
    }

    let indent = 4 + label + if shows_name { name + 2 } else { 0 };
    push_legend(page, &seen, indent, layout);
}

/// Returns the columns of the longest text.
fn widest<'a>(texts: impl Iterator<Item = &'a String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

/// Returns the lines. Equal neighbors share one if there are many devices.
fn lines(shares: &[DeviceShare]) -> Vec<DeviceLine<'_>> {
    let joins = shares.len() > MAX_SINGLE_LINES;
    let mut lines: Vec<DeviceLine<'_>> = Vec::new();
    let mut first_index = 0;

    for share in shares {
        match lines.last_mut() {
            Some(last) if joins && are_equal(last.share, share) => {
                last.label = format!("GPU {first_index}-{}", share.index);
                last.note = format!("{} each", note(share));
            }
            _ => {
                first_index = share.index;
                lines.push(DeviceLine {
                    share,
                    label: format!("GPU {}", share.index),
                    name: short_name(&share.name),
                    note: note(share),
                });
            }
        }
    }

    lines
}

/// Whether two devices would have the same line.
fn are_equal(one: &DeviceShare, other: &DeviceShare) -> bool {
    one.name == other.name && bar_parts(one) == bar_parts(other) && note(one) == note(other)
}

/// Returns the bytes that are left or short.
fn note(share: &DeviceShare) -> String {
    match (share.short_by_bytes, share.available_bytes) {
        (Some(short @ 1..), _) => format!("{} short", figure(short)),
        (_, Some(available)) => format!(
            "{} left",
            figure(available.saturating_sub(share.required_bytes))
        ),
        _ => String::new(),
    }
}

fn note_tone(share: &DeviceShare, verdict: Option<Verdict>) -> Tone {
    match (share.short_by_bytes, verdict) {
        (Some(1..), Some(Verdict::Tight)) => Tone::Warning,
        (Some(1..), _) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Appends the bar: blocks, or ASCII letters between brackets.
fn push_bar(page: &mut Page, cells: &Cells, signs: Signs) {
    let letters = letters(signs);
    let end = if cells.overflow { ">" } else { "]" };

    page.push(Tone::Plain, signs.choose("", "["));
    for ((place, letter), count) in letters.iter().enumerate().zip(cells.counts) {
        let text: String = std::iter::repeat_n(*letter, count).collect();
        page.push(bar_tone(place), text);
    }
    page.push(
        Tone::Plain,
        signs.choose(if cells.overflow { ">" } else { "" }, end),
    );
}

/// Returns the characters of the parts.
fn letters(signs: Signs) -> [char; LEGEND.len()] {
    signs.choose(BLOCKS, LEGEND.map(|(letter, _)| letter))
}

/// Returns the tone of a part, by its place in [`LEGEND`].
fn bar_tone(place: usize) -> Tone {
    match place {
        0 | 1 => Tone::Dim,
        place if place + 1 == LEGEND.len() => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// Appends the meaning of the characters that occur.
fn push_legend(page: &mut Page, seen: &[bool], indent: usize, layout: PageLayout) {
    let parts = letters(layout.signs)
        .into_iter()
        .zip(LEGEND)
        .zip(seen)
        .filter(|(_, seen)| **seen)
        .map(|((letter, (_, words)), _)| format!("{letter} {words}"));
    let parts: Vec<String> = parts.collect();
    let legend = parts.join("  ");

    // A legend that is too long for one line is wrapped between its parts.
    let legend = match layout.columns.checked_sub(legend.chars().count() + 2) {
        Some(room) => format!("{}{legend}", " ".repeat(indent.min(room + 2))),
        None => format!("  {}", wrapped_to(layout.columns, &parts.join(", "), 2, 2)),
    };
    page.push(Tone::Dim, legend);
    page.end_line();
}

fn bar_parts(share: &DeviceShare) -> BarParts {
    let weights = high_bytes(share, &[ComponentName::Weights]);

    // Heavier weights leave the cache a smaller part of the engine's share.
    let cache = high_bytes(share, &[ComponentName::KvCache, ComponentName::State])
        .min(share.required_bytes.saturating_sub(weights));

    BarParts {
        used: share
            .free_bytes
            .map_or(0, |free| share.total_bytes.saturating_sub(free)),
        leased: share.leased_bytes,
        weights,
        cache,
        other: share
            .required_bytes
            .saturating_sub(weights)
            .saturating_sub(cache),
        total: share.total_bytes,
    }
}

/// Returns the sum of the upper bounds of the components with these names.
fn high_bytes(share: &DeviceShare, names: &[ComponentName]) -> u64 {
    share
        .components
        .iter()
        .filter(|part| names.contains(&part.name))
        .map(|part| part.high_bytes)
        .fold(0, u64::saturating_add)
}
