//! A table of a corpus: separated values below a heading, read by the names of its columns.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{DataError, hint};

/// A table with its heading.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    corpus: &'static str,
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<(usize, Vec<String>)>,
}

/// A line of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    table: &'a Table,
    /// Its line in the file, from 1 on.
    pub(crate) line: usize,
    fields: &'a [String],
}

impl Table {
    /// Reads a table of `corpus` in UTF-8, quoted as RFC 4180 says, that separates fields by `delimiter`.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read; [`DataError::Source`] for an empty file or a line with another number of
    /// fields than the heading.
    pub(crate) fn read(
        corpus: &'static str,
        path: &Path,
        delimiter: u8,
    ) -> Result<Self, DataError> {
        let text = fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))?;
        let mut table = Table {
            corpus,
            path: path.to_path_buf(),
            columns: Vec::new(),
            rows: Vec::new(),
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        let refused = |error: csv::Error| table.refused(error.to_string());
        let columns = reader.headers().map_err(refused)?;
        let columns: Vec<String> = columns.iter().map(|name| name.trim().to_owned()).collect();
        if columns.iter().all(String::is_empty) {
            return Err(table.refused("it is empty, wanted a heading and a line a clip".to_owned()));
        }
        let rows = reader.records().map(|record| {
            let record = record.map_err(refused)?;
            let line = record
                .position()
                .map_or(0, |position| position.line() as usize);
            Ok((line, record.iter().map(str::to_owned).collect()))
        });
        let rows = rows.collect::<Result<_, DataError>>()?;
        table.columns = columns;
        table.rows = rows;
        Ok(table)
    }

    /// The lines below the heading.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, fields)| Row {
            table: self,
            line: *line,
            fields,
        })
    }

    /// The names of the columns.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    fn refused(&self, detail: String) -> DataError {
        DataError::Source {
            corpus: self.corpus,
            path: self.path.clone(),
            detail,
        }
    }
}

impl<'a> Row<'a> {
    /// The field of a column that every such table has, without surrounding space.
    ///
    /// # Errors
    /// [`DataError::Source`] if there is no such column.
    pub(crate) fn get(&self, column: &str) -> Result<&'a str, DataError> {
        self.find(column).ok_or_else(|| {
            let columns: Vec<&str> = self.table.columns.iter().map(String::as_str).collect();
            self.table.refused(format!(
                "no column `{column}`; it has {}{}",
                columns.join(", "),
                hint(column, &columns)
            ))
        })
    }

    /// The field of a column that a table may lack, without surrounding space.
    pub(crate) fn find(&self, column: &str) -> Option<&'a str> {
        let columns = &self.table.columns;
        let index = columns.iter().position(|name| name == column)?;
        self.fields.get(index).map(|field| field.trim())
    }

    /// The word of `words` that the code in a column stands for; the case of letters does not matter.
    ///
    /// # Errors
    /// [`DataError::Source`] if there is no such column or code.
    pub(crate) fn coded(
        &self,
        column: &str,
        words: &[(&str, &'static str)],
    ) -> Result<&'static str, DataError> {
        let code = self.get(column)?;
        match word_of(code, words) {
            Some(word) => Ok(word),
            None => Err(self.refused(format!("`{column}` is {}", no_code(code, words)))),
        }
    }

    /// The number in a column; `None` if it is empty.
    ///
    /// # Errors
    /// [`DataError::Source`] if there is no such column or something else in it.
    pub(crate) fn number(&self, column: &str) -> Result<Option<f32>, DataError> {
        let text = self.get(column)?;
        match text.parse::<f32>() {
            _ if text.is_empty() || text.eq_ignore_ascii_case("nan") => Ok(None),
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.refused(format!("`{column}` is `{text}`, wanted a number"))),
        }
    }

    /// An error about this line.
    pub(crate) fn refused(&self, detail: impl std::fmt::Display) -> DataError {
        self.table.refused(format!("line {}: {detail}", self.line))
    }
}

/// The word that a code stands for; the case of letters does not matter.
pub(crate) fn word_of(code: &str, words: &[(&str, &'static str)]) -> Option<&'static str> {
    let mut words = words.iter();
    let (_, word) = words.find(|(known, _)| known.eq_ignore_ascii_case(code))?;
    Some(word)
}

/// What to say of a code that stands for nothing.
pub(crate) fn no_code(code: &str, words: &[(&str, &'static str)]) -> String {
    let codes: Vec<&str> = words.iter().map(|(code, _)| *code).collect();
    format!(
        "`{code}`, wanted one of {}{}",
        codes.join(", "),
        hint(code, &codes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        fs::write(&path, text).unwrap();
        Table::read("ours", &path, b',').map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_found_by_column() {
        let table =
            read("\u{feff}name, discrete,text\na,sad,\"no, \"\"never\"\"\nagain\"\nb, happy ,\n")
                .unwrap();
        let rows: Vec<Row> = table.rows().collect();
        assert_eq!(table.columns(), ["name", "discrete", "text"]);
        assert_eq!(rows[0].get("text").unwrap(), "no, \"never\"\nagain");
        assert_eq!(rows[1].get("discrete").unwrap(), "happy");
        assert_eq!((rows[0].line, rows[1].line), (2, 4));
        assert_eq!(rows[1].find("valence"), None);
        let message = rows[1].get("discreet").unwrap_err().to_string();
        assert!(
            message.contains(
                "no column `discreet`; it has name, discrete, text; did you mean `discrete`?"
            ),
            "{message}"
        );
    }

    #[test]
    fn a_torn_line_is_named() {
        let message = read("name,emotion\na,sad\nb\n").unwrap_err();
        assert!(message.contains("line: 3"), "{message}");
        assert!(read("").unwrap_err().contains("it is empty"));
    }

    #[test]
    fn codes_and_numbers_are_read() {
        let words = [("hap", "happy"), ("sad", "sad")];
        let table = read("code,value\nHAP,-0.5\nhat,\nsad,x\n").unwrap();
        let rows: Vec<Row> = table.rows().collect();
        assert_eq!(rows[0].coded("code", &words).unwrap(), "happy");
        assert_eq!(rows[0].number("value").unwrap(), Some(-0.5));
        assert_eq!(rows[1].number("value").unwrap(), None);
        let message = rows[1].coded("code", &words).unwrap_err().to_string();
        assert!(
            message
                .contains("line 3: `code` is `hat`, wanted one of hap, sad; did you mean `hap`?"),
            "{message}"
        );
        let message = rows[2].number("value").unwrap_err().to_string();
        assert!(
            message.contains("line 4: `value` is `x`, wanted a number"),
            "{message}"
        );
    }
}
