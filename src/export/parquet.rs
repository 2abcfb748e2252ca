//! Apache Parquet: the columns of `csv`, typed. Compressed with Snappy, which every reader has.
//!
//! Memory: the rows of one row group.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::row::{COLUMNS, Cell, Kind, Row, write_context, write_label};
use super::shape::Places;
use super::{FeatureKind, Shape, Sink};
use crate::experiment::context::Value;
use crate::experiment::decision::Label;
use crate::journal::scalar::{write_hex, write_json};

/// Rows of a row group.
const ROWS: usize = 1 << 16;

type Output<'a> = Box<dyn Write + Send + 'a>;

pub(super) struct Parquet<'a> {
    /// `None` once it is finished.
    writer: Option<SerializedFileWriter<Output<'a>>>,
    columns: Vec<Column>,
    places: Places,
    rows: usize,
}

/// What waits for the end of its row group.
struct Column {
    values: Values,
    /// 1 where there is a value, else 0.
    levels: Vec<i16>,
}

enum Values {
    Texts(Vec<ByteArray>),
    Numbers(Vec<f64>),
    Wholes(Vec<i64>),
    Truths(Vec<bool>),
}

/// A column's type, and an empty one.
fn column(
    name: &str,
    physical: Physical,
    logical: Option<LogicalType>,
) -> Result<(TypePtr, Column), ParquetError> {
    let field = Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()?;
    let values = match physical {
        Physical::DOUBLE => Values::Numbers(Vec::new()),
        Physical::INT64 => Values::Wholes(Vec::new()),
        Physical::BOOLEAN => Values::Truths(Vec::new()),
        _ => Values::Texts(Vec::new()),
    };
    let levels = Vec::new();
    Ok((Arc::new(field), Column { values, levels }))
}

fn fixed(name: &str, kind: Kind) -> Result<(TypePtr, Column), ParquetError> {
    match kind {
        Kind::Text => column(name, Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Json => column(name, Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        Kind::Number => column(name, Physical::DOUBLE, None),
        Kind::Whole => column(name, Physical::INT64, Some(LogicalType::integer(64, false))),
        Kind::Time => column(
            name,
            Physical::INT64,
            Some(LogicalType::timestamp(true, TimeUnit::MILLIS)),
        ),
    }
}

fn feature(name: &str, kind: FeatureKind) -> Result<(TypePtr, Column), ParquetError> {
    let name = format!("context.{name}");
    match kind {
        FeatureKind::Number => column(&name, Physical::DOUBLE, None),
        FeatureKind::Boolean => column(&name, Physical::BOOLEAN, None),
        FeatureKind::Text => column(&name, Physical::BYTE_ARRAY, Some(LogicalType::String)),
    }
}

impl<'a> Parquet<'a> {
    pub(super) fn new(shape: &Shape, output: Output<'a>) -> io::Result<Self> {
        let fixed = COLUMNS.iter().map(|(name, kind)| fixed(name, *kind));
        let rest = std::iter::once(column(
            "context",
            Physical::BYTE_ARRAY,
            Some(LogicalType::Json),
        ));
        let features = shape.features().map(|(name, kind)| feature(name, kind));
        let all: Result<Vec<_>, _> = fixed.chain(rest).chain(features).collect();
        let (fields, columns) = all?.into_iter().unzip();
        let schema = Type::group_type_builder("decision")
            .with_fields(fields)
            .build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("pointsman {}", env!("CARGO_PKG_VERSION")))
            .build();
        let writer = SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties))?;
        Ok(Self {
            writer: Some(writer),
            columns,
            places: Places::new(shape),
            rows: 0,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.as_mut().filter(|_| self.rows > 0) else {
            return Ok(());
        };
        let mut group = writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut written) = group.next_column()? else {
                break;
            };
            column.write(&mut written)?;
            written.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

impl Sink for Parquet<'_> {
    fn row(&mut self, row: &Row<'_>) -> io::Result<bool> {
        let (fixed, more) = self.columns.split_at_mut(COLUMNS.len());
        for (column, cell) in fixed.iter_mut().zip(row.cells()) {
            column.push(&cell);
        }
        let context = row.context();
        if let Some((rest, features)) = more.split_first_mut() {
            for (column, value) in features.iter_mut().zip(self.places.values(context)) {
                column.push_value(value);
            }
            let mut json = Vec::new();
            let any = context.is_some_and(|context| {
                write_context(&mut json, context, |name| self.places.lacks(name))
            });
            rest.push_text(any.then_some(json));
        }
        self.rows += 1;
        if self.rows == ROWS {
            self.flush()?;
        }
        Ok(true)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(mut writer) = self.writer.take() {
            writer.finish()?;
            writer.inner_mut().flush()?;
        }
        Ok(())
    }
}

impl Column {
    fn write(&mut self, written: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = Some(self.levels.as_slice());
        match &mut self.values {
            Values::Texts(values) => {
                written
                    .typed::<ByteArrayType>()
                    .write_batch(values, levels, None)?;
                values.clear();
            }
            Values::Numbers(values) => {
                written
                    .typed::<DoubleType>()
                    .write_batch(values, levels, None)?;
                values.clear();
            }
            Values::Wholes(values) => {
                written
                    .typed::<Int64Type>()
                    .write_batch(values, levels, None)?;
                values.clear();
            }
            Values::Truths(values) => {
                written
                    .typed::<BoolType>()
                    .write_batch(values, levels, None)?;
                values.clear();
            }
        }
        self.levels.clear();
        Ok(())
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match *cell {
            Cell::Number(number) => self.push_number(Some(number)),
            // Counts are declared unsigned, so that no bit of them is a sign.
            Cell::Whole(number) | Cell::Version(number) => self.push_whole(Some(number as i64)),
            Cell::Time(at) => self.push_whole(Some(at.as_millis() as i64)),
            Cell::Missing => self.push_nothing(),
            Cell::Text(text) => self.push_text(Some(text.as_bytes().to_vec())),
            Cell::Json(json) => self.push_text(Some(json.to_vec())),
            Cell::Hexadecimal(number, digits) => {
                let mut text = Vec::with_capacity(digits as usize);
                write_hex(&mut text, number, digits);
                self.push_text(Some(text));
            }
            Cell::Label(Label::Text(text)) => self.push_text(Some(text.as_bytes().to_vec())),
            Cell::Label(label) => {
                let mut text = Vec::new();
                write_label(&mut text, label);
                self.push_text(Some(text));
            }
        }
    }

    /// A feature's value; as a text, where its column holds several kinds.
    fn push_value(&mut self, value: &Value) {
        match (&mut self.values, value) {
            (Values::Numbers(_), Value::Number(number)) => self.push_number(Some(*number)),
            (Values::Truths(truths), Value::Boolean(truth)) => {
                truths.push(*truth);
                self.levels.push(1);
            }
            (Values::Texts(_), Value::Text(text)) => {
                self.push_text(Some(text.as_bytes().to_vec()));
            }
            (Values::Texts(_), Value::Number(number)) => {
                let mut text = Vec::new();
                write_json(&mut text, number);
                self.push_text(Some(text));
            }
            (Values::Texts(_), Value::Boolean(truth)) => {
                self.push_text(Some(truth.to_string().into_bytes()));
            }
            _ => self.push_nothing(),
        }
    }

    fn push_nothing(&mut self) {
        self.levels.push(0);
    }

    fn push_text(&mut self, text: Option<Vec<u8>>) {
        self.levels.push(i16::from(text.is_some()));
        if let (Values::Texts(texts), Some(text)) = (&mut self.values, text) {
            texts.push(ByteArray::from(text));
        }
    }

    fn push_number(&mut self, number: Option<f64>) {
        self.levels.push(i16::from(number.is_some()));
        if let (Values::Numbers(numbers), Some(number)) = (&mut self.values, number) {
            numbers.push(number);
        }
    }

    fn push_whole(&mut self, number: Option<i64>) {
        self.levels.push(i16::from(number.is_some()));
        if let (Values::Wholes(numbers), Some(number)) = (&mut self.values, number) {
            numbers.push(number);
        }
    }
}
