//! A table in a rectangle: which of its columns and rows find room, and where each stands.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::draw::Palette;
use super::rows::{Column, Row};
use super::text::{cut, width};

/// Between two columns.
const GAP: usize = 2;
/// Before each row: the sign of the selected one.
const MARGIN: usize = 2;

/// Draws titles and rows.
pub(super) fn draw(
    buffer: &mut Buffer,
    area: Rect,
    columns: &[Column],
    rows: &[Row],
    selected: usize,
    palette: Palette,
) {
    let places = places(columns, rows, area.width.into());
    let put = |buffer: &mut Buffer, y: u16, place: &Place, text: &str, style: Style| {
        let text = cut(text, place.width);
        let shift = match columns[place.column].is_number {
            true => place.width - width(&text),
            false => 0,
        };
        buffer.set_string(area.x + (place.x + shift) as u16, y, text, style);
    };
    if area.height == 0 {
        return;
    }
    for place in &places {
        let title = columns[place.column].title;
        put(
            buffer,
            area.y,
            place,
            title,
            Style::new().add_modifier(Modifier::UNDERLINED),
        );
    }
    let room = usize::from(area.height) - 1;
    let from = first(rows.len(), selected, room);
    for (at, row) in rows.iter().enumerate().skip(from).take(room) {
        let y = area.y + 1 + (at - from) as u16;
        let style = palette.mood(row.mood);
        for place in &places {
            put(buffer, y, place, &row.cells[place.column].text, style);
        }
        if at == selected {
            let line = Rect {
                y,
                height: 1,
                ..area
            };
            buffer.set_string(area.x, y, cut(">", area.width.into()), style);
            buffer.set_style(line, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}

/// The first row that is shown, so that the selected one is, in the middle where that can be.
fn first(count: usize, selected: usize, room: usize) -> usize {
    selected
        .saturating_sub(room / 2)
        .min(count.saturating_sub(room))
}

/// Where a column stands.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    column: usize,
    x: usize,
    width: usize,
}

/// The columns that find room, in their order. Where not all do, those are narrowed that may be, and then
/// those with the lowest ranks left out.
fn places(columns: &[Column], rows: &[Row], room: usize) -> Vec<Place> {
    let room = room.saturating_sub(MARGIN);
    let wide = |at: usize| {
        let cells = rows.iter().map(|row| width(&row.cells[at].text));
        let titled = cells.chain([columns[at].title.len()]);
        titled.max().unwrap_or_default()
    };
    let wide: Vec<usize> = (0..columns.len()).map(wide).collect();
    let least = |at: usize| {
        columns[at]
            .least
            .map_or(wide[at], |least| least.min(wide[at]))
    };
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let widths: usize = kept.iter().map(|at| least(*at)).sum();
        widths + GAP * (kept.len() - 1)
    };
    while kept.len() > 1 && needed(&kept) > room {
        let lowest = kept.iter().copied().min_by_key(|at| columns[*at].rank);
        kept.retain(|at| Some(*at) != lowest);
    }
    let mut spare = room.saturating_sub(needed(&kept));
    let mut x = MARGIN;
    let place = |column: usize| {
        let more = (wide[column] - least(column)).min(spare);
        spare -= more;
        let place = Place {
            column,
            x,
            width: (least(column) + more).min(room),
        };
        x += place.width + GAP;
        place
    };
    kept.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rows::Tab;
    use super::*;

    fn titles(room: usize) -> Vec<&'static str> {
        let columns = Tab::Endpoints.columns();
        let places = places(columns, &[], room);
        for pair in places.windows(2) {
            assert_eq!(pair[0].x + pair[0].width + GAP, pair[1].x);
        }
        let last = places.last().expect("one is always left");
        assert!(last.x + last.width <= room.max(MARGIN), "{room}");
        places
            .iter()
            .map(|place| columns[place.column].title)
            .collect()
    }

    #[test]
    fn columns_that_find_no_room_are_left_out_the_least_first() {
        assert_eq!(titles(200).len(), Tab::Endpoints.columns().len());
        assert_eq!(titles(24), ["ENDPOINT", "STATE", "WHY"]);
        assert_eq!(titles(12), ["ENDPOINT"]);
        assert_eq!(titles(3), ["ENDPOINT"]);
        assert_eq!(titles(0), ["ENDPOINT"]);
        for room in 0..200 {
            assert!(titles(room).len() <= titles(room + 1).len(), "{room}");
        }
    }

    #[test]
    fn the_selected_row_is_among_those_that_are_shown() {
        for count in 0..30 {
            for room in 0..12 {
                for selected in 0..count {
                    let from = first(count, selected, room);
                    let is_shown = (from..from + room).contains(&selected);
                    assert!(is_shown || room == 0, "{count} {room} {selected}");
                    assert!(from + room <= count.max(room), "{count} {room} {selected}");
                }
            }
        }
    }
}
