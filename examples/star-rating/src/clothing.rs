//! Reads the clothing reviews out of their Parquet file.
//!
//! Uses the row interface of the `parquet` crate: 23,486 rows do not need Arrow.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use crate::markup::plain_text;
use crate::reviews::Review;

/// The reviews in `parquet`, cleaned; rows with an empty body and exact repeats of product and body
/// are left out.
///
/// # Errors
/// When it is not the Parquet file expected.
pub fn read(parquet: Bytes) -> Result<Vec<Review>> {
    let reader = SerializedFileReader::new(parquet).context("not a Parquet file")?;
    let mut seen = HashSet::new();
    let mut reviews = Vec::new();
    for (index, row) in reader.get_row_iter(None)?.enumerate() {
        let review = convert(index, &row?).with_context(|| format!("row {index}"))?;
        let first = seen.insert((review.product_id.clone(), review.review_body.clone()));
        if first && !review.review_body.is_empty() {
            reviews.push(review);
        }
    }
    Ok(reviews)
}

fn convert(index: usize, row: &Row) -> Result<Review> {
    let fields: HashMap<&str, &Field> = row
        .get_column_iter()
        .map(|(name, field)| (name.as_str(), field))
        .collect();
    Ok(Review {
        review_id: format!("WC{index:05}"),
        product_id: format!("WC{}", number(&fields, "Clothing ID")?),
        // The source misspells its own division.
        product_parent: text_or(&fields, "Division Name", "General")
            .replace("Initmates", "Intimates"),
        product_title: text_or(&fields, "Class Name", "Other"),
        product_category: match text_or(&fields, "Department Name", "Other").as_str() {
            "Intimate" => "Intimates".to_owned(),
            other => other.to_owned(),
        },
        star_rating: u8::try_from(number(&fields, "Rating")?)
            .ok()
            .filter(|stars| (1..=5).contains(stars))
            .context("Rating must be 1 to 5")?,
        helpful_votes: u32::try_from(number(&fields, "Positive Feedback Count")?)
            .context("Positive Feedback Count must not be negative")?,
        review_headline: text_or(&fields, "Title", ""),
        review_body: text_or(&fields, "Review Text", ""),
    })
}

fn number(fields: &HashMap<&str, &Field>, column: &str) -> Result<i64> {
    match fields.get(column) {
        Some(Field::Long(value)) => Ok(*value),
        other => anyhow::bail!("column {column:?}: expected a whole number, found {other:?}"),
    }
}

fn text_or(fields: &HashMap<&str, &Field>, column: &str, default: &str) -> String {
    let text = match fields.get(column) {
        Some(Field::Str(value)) => plain_text(value),
        _ => String::new(),
    };
    if text.is_empty() {
        default.to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[(&str, Field)]) -> Row {
        Row::new(
            columns
                .iter()
                .map(|(name, field)| ((*name).to_owned(), field.clone()))
                .collect(),
        )
    }

    fn text(value: &str) -> Field {
        Field::Str(value.to_owned())
    }

    #[test]
    fn a_row_becomes_a_review() {
        let review = convert(
            7,
            &row(&[
                ("Clothing ID", Field::Long(767)),
                ("Title", Field::Null),
                ("Review Text", text("Silky &amp; soft\r\n\r\nloved it")),
                ("Rating", Field::Long(4)),
                ("Positive Feedback Count", Field::Long(3)),
                ("Division Name", text("Initmates")),
                ("Department Name", text("Intimate")),
                ("Class Name", Field::Null),
            ]),
        )
        .unwrap();
        assert_eq!(review.review_id, "WC00007");
        assert_eq!(review.product_id, "WC767");
        assert_eq!(review.product_parent, "Intimates");
        assert_eq!(review.product_category, "Intimates");
        assert_eq!(review.product_title, "Other");
        assert_eq!(review.review_headline, "");
        assert_eq!(review.review_body, "Silky & soft loved it");
        assert_eq!((review.star_rating, review.helpful_votes), (4, 3));
    }

    #[test]
    fn a_wrong_file_is_refused() {
        assert!(read(Bytes::from_static(b"not parquet")).is_err());
        let message = format!(
            "{:#}",
            convert(0, &row(&[("Rating", text("five"))])).unwrap_err()
        );
        assert!(message.contains("Clothing ID"), "{message}");
    }
}
