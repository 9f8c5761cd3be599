//! A page of text: headings, labelled values, aligned tables.

use std::fmt::{Display, Write};

const INDENT: &str = "  ";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// A column of a table: its title, and on which side its cells are aligned.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// A report as it is written, before it is printed.
pub(crate) struct Page {
    text: String,
    styled: bool,
}

impl Page {
    /// An empty page; `styled` where headings may be bold.
    pub(crate) fn new(styled: bool) -> Self {
        Self { text: String::new(), styled }
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// A title, with an empty line before it unless the page begins with it.
    pub(crate) fn heading(&mut self, title: impl Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let title = self.bold(&title.to_string());
        self.push(&title);
    }

    /// An indented line.
    pub(crate) fn line(&mut self, line: impl Display) {
        self.push(&format!("{INDENT}{line}"));
    }

    /// Labels and values. Lines of a value after its first are aligned with it.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) {
        let width = fields.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
        for (label, value) in fields {
            let mut label = *label;
            for line in value.lines() {
                self.push(&format!("{INDENT}{label:<width$}{INDENT}{line}"));
                label = "";
            }
        }
    }

    /// A table. Rows shorter than the columns are filled up with empty cells.
    pub(crate) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        let titles: Vec<String> = columns.iter().map(|column| column.title().to_owned()).collect();
        let widths: Vec<usize> = (0..columns.len())
            .map(|i| {
                std::iter::once(&titles)
                    .chain(rows)
                    .filter_map(|row| row.get(i))
                    .map(|cell| width(cell))
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let titles = line(columns, &widths, &titles);
        let titles = self.bold(&titles);
        self.push(&format!("{INDENT}{titles}"));
        for row in rows {
            self.push(&format!("{INDENT}{}", line(columns, &widths, row)));
        }
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn bold(&self, text: &str) -> String {
        if self.styled { format!("{BOLD}{text}{PLAIN}") } else { text.to_owned() }
    }
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
        }
    }
}

fn line(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let mut line = String::new();
    for (i, (column, width)) in columns.iter().zip(widths).enumerate() {
        let cell = cells.get(i).map_or("", String::as_str);
        if i > 0 {
            line.push_str(INDENT);
        }
        // Writing to a string cannot fail.
        _ = match column {
            Column::Left(_) => write!(line, "{cell:<width$}"),
            Column::Right(_) => write!(line, "{cell:>width$}"),
        };
    }
    line.trim_end().to_owned()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A number and what is counted, in its plural where there is not one: `1 layer`, `28 layers`.
pub(crate) fn count(number: usize, singular: &str) -> String {
    match number {
        1 => format!("1 {singular}"),
        _ => format!("{number} {singular}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(styled: bool, write: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(styled);
        write(&mut page);
        page.into_text()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_no_space() {
        let table = text(false, |page| {
            let rows = [vec!["a".into(), "12".into(), "x".into()], vec!["långt".into(), "3".into()]];
            page.table(&[Column::Left("name"), Column::Right("K"), Column::Left("by")], &rows);
        });
        assert_eq!(table, "  name    K  by\n  a      12  x\n  långt   3\n");
    }

    #[test]
    fn further_lines_of_a_value_stand_below_its_first() {
        let fields = text(false, |page| page.fields(&[("a", "1\n2".into()), ("long", "3".into())]));
        assert_eq!(fields, "  a     1\n        2\n  long  3\n");
    }

    #[test]
    fn only_a_styled_page_has_escape_codes() {
        let write = |page: &mut Page| page.heading("title");
        assert_eq!(text(false, write), "title\n");
        assert_eq!(text(true, write), "\u{1b}[1mtitle\u{1b}[0m\n");
    }
}
