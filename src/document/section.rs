//! Checked access to one table of a document.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};
use super::{Field, Kind, did_you_mean, keys, parse_duration, quoted};

/// Syntax errors that are shown; a file that is no TOML at all has one in each line.
const MAX_SYNTAX_ERRORS: usize = 20;

/// A parsed file.
#[derive(Debug)]
pub struct Document<'a> {
    file: &'a str,
    text: Arc<str>,
    root: Spanned<DeTable<'a>>,
    broken: bool,
}

impl<'a> Document<'a> {
    /// Parses `text`, reporting every syntax error. What could be read is there to be checked all the same.
    pub fn parse(file: &'a str, text: &'a str, problems: &Problems) -> Self {
        let shared: Arc<str> = Arc::from(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        let broken = !errors.is_empty();
        for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            problems.push(Problem::at(
                file,
                &shared,
                error.span().unwrap_or(0..0),
                message,
            ));
        }
        if errors.len() > MAX_SYNTAX_ERRORS {
            let more = errors.len() - MAX_SYNTAX_ERRORS;
            problems.push(Problem::of_file(
                file,
                format!("{more} more places that are not TOML"),
            ));
        }
        Self {
            file,
            text: shared,
            root,
            broken,
        }
    }

    /// Whether the text is not TOML. What is missing or odd in it then may follow from that.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The top of the file, checked against its fields.
    pub fn section<'d>(&'d self, fields: &'static [Field], problems: &'d Problems) -> Section<'d> {
        let section = Section {
            file: self.file,
            text: &self.text,
            table: self.root.get_ref(),
            span: 0..0,
            path: String::new(),
            fields,
            problems,
        };
        section.check(&|_| None);
        section
    }
}

/// A table of a document and the fields that it may have. Opening one checks it.
#[derive(Debug, Clone)]
pub struct Section<'d> {
    file: &'d str,
    text: &'d Arc<str>,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    path: String,
    fields: &'static [Field],
    problems: &'d Problems,
}

impl<'d> Section<'d> {
    /// Where problems go.
    pub fn problems(&self) -> &'d Problems {
        self.problems
    }

    /// The file's name.
    pub fn file(&self) -> &'d str {
        self.file
    }

    /// The file's text.
    pub fn text(&self) -> &Arc<str> {
        self.text
    }

    /// Whether the key is given, rightly or wrongly.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The keys that are given.
    pub fn given(&self) -> Vec<String> {
        let mut given: Vec<_> = self
            .table
            .iter()
            .map(|(key, _)| (key.span().start, key.get_ref().to_string()))
            .collect();
        given.sort_unstable();
        given.into_iter().map(|(_, key)| key).collect()
    }

    /// Reports an error at the value of `key`, or at the section where it is not given.
    pub fn reject(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let span = self
            .value(key)
            .map_or_else(|| self.span.clone(), Spanned::span);
        self.problems
            .push(Problem::at(self.file, self.text, span, message).help(help));
    }

    /// Reports an error at the key itself.
    pub fn reject_key(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let entry = self.table.get_key_value(key);
        let span = entry.map_or_else(|| self.span.clone(), |(key, _)| key.span());
        self.problems
            .push(Problem::at(self.file, self.text, span, message).help(help));
    }

    /// Reports an error at the section's head.
    pub fn reject_section(&self, message: impl Into<String>, help: impl Into<String>) {
        self.problems
            .push(Problem::at(self.file, self.text, self.span.clone(), message).help(help));
    }

    /// Reports a warning at the value of `key`, or at the section.
    pub fn warn(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let span = self
            .value(key)
            .map_or_else(|| self.span.clone(), Spanned::span);
        self.problems.push(
            Problem::at(self.file, self.text, span, message)
                .help(help)
                .as_warning(),
        );
    }

    /// A text.
    pub fn string(&self, key: &str) -> Option<&'d str> {
        self.value(key)?.get_ref().as_str()
    }

    /// A truth value.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.value(key)?.get_ref().as_bool()
    }

    /// A whole number in its range.
    pub fn integer(&self, key: &str) -> Option<i64> {
        let Kind::Integer(low, high) = self.field(key)?.kind else {
            return None;
        };
        integer(self.value(key)?.get_ref()).filter(|value| (low..=high).contains(value))
    }

    /// A number in its range.
    pub fn number(&self, key: &str) -> Option<f64> {
        let Kind::Number(range) = self.field(key)?.kind else {
            return None;
        };
        number(self.value(key)?.get_ref()).filter(|value| range.contains(*value))
    }

    /// A duration in milliseconds.
    pub fn duration(&self, key: &str) -> Option<u64> {
        parse_duration(self.string(key)?)
    }

    /// A list of texts; empty where there is none.
    pub fn strings(&self, key: &str) -> Vec<&'d str> {
        let array = self.value(key).and_then(|value| value.get_ref().as_array());
        array
            .into_iter()
            .flat_map(|array| array.iter())
            .filter_map(|item| item.get_ref().as_str())
            .collect()
    }

    /// A list of whole numbers in their range; `None` where there is none, or where one is not.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        let (kind, value) = (self.field(key)?.kind, self.value(key)?.get_ref());
        let items = value.as_array().filter(|_| fits(&kind, value))?;
        items.iter().map(|item| integer(item.get_ref())).collect()
    }

    /// Reports an error at item `index` of the list at `key`.
    pub fn reject_item(
        &self,
        key: &str,
        index: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let item = self
            .value(key)
            .and_then(|value| value.get_ref().as_array())
            .and_then(|array| array.get(index));
        let span = item.map_or_else(|| self.span.clone(), Spanned::span);
        self.problems
            .push(Problem::at(self.file, self.text, span, message).help(help));
    }

    /// A table of texts; empty where there is none.
    pub fn string_map(&self, key: &str) -> Vec<(String, &'d str)> {
        let table = self.value(key).and_then(|value| value.get_ref().as_table());
        let pairs = table.into_iter().flat_map(|table| table.iter());
        pairs
            .filter_map(|(key, value)| Some((key.get_ref().to_string(), value.get_ref().as_str()?)))
            .collect()
    }

    /// The numbers of the table at `key`, in the order in which they were written; those that are out of place left out.
    /// Empty where there is no table.
    pub fn numbers(&self, key: &str) -> Vec<(String, f64)> {
        let kind = self.field(key).map(|field| field.kind);
        let (Some(Kind::PerKey(kind) | Kind::OneOrPerKey(kind)), Some(table)) = (
            kind,
            self.value(key).and_then(|value| value.get_ref().as_table()),
        ) else {
            return Vec::new();
        };
        let mut numbers: Vec<_> = table
            .iter()
            .filter(|(_, value)| fits(kind, value.get_ref()))
            .filter_map(|(key, value)| {
                let number = number(value.get_ref())?;
                Some((key.span().start, key.get_ref().to_string(), number))
            })
            .collect();
        numbers.sort_by_key(|(start, ..)| *start);
        numbers
            .into_iter()
            .map(|(_, key, number)| (key, number))
            .collect()
    }

    /// The number at `key` where there may be one number or a table of them.
    pub fn one_number(&self, key: &str) -> Option<f64> {
        let Kind::OneOrPerKey(kind) = self.field(key)?.kind else {
            return None;
        };
        let value = self.value(key)?.get_ref();
        number(value).filter(|_| fits(kind, value))
    }

    /// The table at `key`, checked against the fields that this section's fields say.
    pub fn section(&self, key: &'static str) -> Option<Section<'d>> {
        match self.field(key)?.kind {
            Kind::Table(fields) | Kind::ChoiceOrTable(_, fields) => self.section_as(key, fields),
            _ => None,
        }
    }

    /// The table at `key`, checked against these fields.
    pub fn section_as(&self, key: &str, fields: &'static [Field]) -> Option<Section<'d>> {
        self.section_explained(key, fields, &|_| None)
    }

    /// The table at `key`, checked against these fields. `explain` may know more of a key that is not one of them than that it is
    /// unknown: a message and a help.
    pub fn section_explained(
        &self,
        key: &str,
        fields: &'static [Field],
        explain: &dyn Fn(&str) -> Option<(String, String)>,
    ) -> Option<Section<'d>> {
        let value = self.value(key)?;
        let section = self.inner(value.get_ref().as_table()?, value.span(), key, fields);
        section.check(explain);
        Some(section)
    }

    /// The table at `key`, whose keys the caller checks.
    pub fn section_as_open(&self, key: &str) -> Option<Section<'d>> {
        let value = self.value(key)?;
        Some(self.inner(value.get_ref().as_table()?, value.span(), key, &[]))
    }

    /// The tables of the array at `key`.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d>> {
        let Some(Kind::Tables(fields)) = self.field(key).map(|field| field.kind) else {
            return Vec::new();
        };
        let array = self.value(key).and_then(|value| value.get_ref().as_array());
        let tables = array.into_iter().flat_map(|array| array.iter());
        let open = |value: &'d Spanned<DeValue<'d>>| {
            let section = self.inner(value.get_ref().as_table()?, value.span(), key, fields);
            section.check(&|_| None);
            Some(section)
        };
        tables.filter_map(open).collect()
    }

    fn inner(
        &self,
        table: &'d DeTable<'d>,
        span: Range<usize>,
        key: &str,
        fields: &'static [Field],
    ) -> Self {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Self {
            table,
            span: self.head_of(span),
            path,
            fields,
            ..self.clone()
        }
    }

    /// A table's span can run over many lines; a caret under its first line says enough.
    fn head_of(&self, span: Range<usize>) -> Range<usize> {
        let end = self.text[span.clone()]
            .find('\n')
            .map_or(span.end, |newline| span.start + newline);
        span.start..end
    }

    fn value(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.table.get(key)
    }

    fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// Unknown keys, missing ones, types and ranges.
    fn check(&self, explain: &dyn Fn(&str) -> Option<(String, String)>) {
        let place = if self.path.is_empty() {
            "at the top of the file".to_owned()
        } else {
            format!("in [{}]", self.path)
        };
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if let Some(field) = self.field(name) {
                self.check_value(field, value);
                continue;
            }
            if let Some((message, help)) = explain(name) {
                self.reject_key(name, message, help);
                continue;
            }
            let known = keys(self.fields);
            let meant = did_you_mean(name, &known)
                .map_or(String::new(), |word| format!("did you mean `{word}`? "));
            self.reject_key(
                name,
                format!("unknown key `{name}` {place}"),
                format!("{meant}known keys are {}", quoted(&known)),
            );
        }
        for field in self
            .fields
            .iter()
            .filter(|field| field.default == super::Default::Required && !self.has(field.key))
        {
            let wanted = field.kind.describe();
            self.reject_section(
                format!("`{}` is missing {place}", field.key),
                format!("it takes {wanted}: {}", field.doc),
            );
        }
    }

    fn check_value(&self, field: &Field, spanned: &Spanned<DeValue<'_>>) {
        self.check_kind(field.key, &field.kind, spanned);
    }

    fn check_kind(&self, key: &str, kind: &Kind, spanned: &Spanned<DeValue<'_>>) {
        let value = spanned.get_ref();
        if let (Kind::PerKey(inner) | Kind::OneOrPerKey(inner), Some(table)) =
            (kind, value.as_table())
        {
            for (key, value) in table {
                self.check_kind(key.get_ref(), inner, value);
            }
            return;
        }
        if fits(kind, value) {
            return;
        }
        let meant = match (kind, value.as_str()) {
            (Kind::Choice(words) | Kind::ChoiceOrTable(words, _), Some(word)) => {
                did_you_mean(word, words)
            }
            _ => None,
        };
        let meant = meant.map_or(String::new(), |word| format!("did you mean \"{word}\"? "));
        let span = self.head_of(spanned.span());
        let shown: String = self.text[span.clone()].chars().take(60).collect();
        let message = format!("`{key}` cannot be {shown}");
        let help = format!("{meant}it takes {}", kind.describe());
        self.problems
            .push(Problem::at(self.file, self.text, span, message).help(help));
    }
}

/// Whether a value is of this kind; what a table holds is checked by itself.
fn fits(kind: &Kind, value: &DeValue<'_>) -> bool {
    let texts = |array: Option<&toml::de::DeArray<'_>>| {
        array.is_some_and(|array| array.iter().all(|item| item.get_ref().is_str()))
    };
    match kind {
        Kind::Text => value.is_str(),
        Kind::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        Kind::Boolean => value.is_bool(),
        Kind::Integer(low, high) => {
            integer(value).is_some_and(|value| (low..=high).contains(&&value))
        }
        Kind::Number(range) => number(value).is_some_and(|value| range.contains(value)),
        Kind::Duration { zero } => value
            .as_str()
            .and_then(parse_duration)
            .is_some_and(|millis| *zero || millis > 0),
        Kind::Texts => texts(value.as_array()),
        Kind::Integers(low, high) => value.as_array().is_some_and(|array| {
            let whole = |item| integer(item).is_some_and(|item| (low..=high).contains(&&item));
            array.iter().all(|item| whole(item.get_ref()))
        }),
        Kind::TextMap => value
            .as_table()
            .is_some_and(|table| table.iter().all(|(_, value)| value.get_ref().is_str())),
        Kind::Table(_) | Kind::PerKey(_) | Kind::Open => value.is_table(),
        Kind::OneOrPerKey(inner) => value.is_table() || fits(inner, value),
        Kind::Tables(_) => value
            .as_array()
            .is_some_and(|array| array.iter().all(|item| item.get_ref().is_table())),
        Kind::ChoiceOrTable(words, _) => {
            value.is_table() || value.as_str().is_some_and(|word| words.contains(&word))
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value.as_float() {
        Some(float) => float.as_str().parse::<f64>().ok()?,
        None => integer(value)? as f64,
    };
    number.is_finite().then_some(number)
}
