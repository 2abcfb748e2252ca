//! `star-rating predict`: every variant's answer to every held-out review, as a table.
//!
//! The table holds no review text, only how long it is. It replays the models in milliseconds where a demo or a
//! comparison of policies would otherwise run BERT for every request.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cache::{Cache, CacheArgs, example_directory, hexadecimal, write_atomically};
use crate::clock::Stopwatch;
use crate::console::{Progress, Unit, line};
use crate::dataset;
use crate::evaluation::{Evaluation, mean_and_error};
use crate::model::Model;
use crate::reviews::{self, Review};
use crate::threads;
use crate::variant::{Variant, committed_directory, load_all};

/// Options of `star-rating predict`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Rate only the first N held-out reviews
    #[arg(long, value_name = "N")]
    reviews: Option<usize>,
    /// Where the table goes [default: the example's predictions.tsv]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Folder of variant files [default: the example's]
    #[arg(long, value_name = "DIR")]
    variants: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// One variant's answer to one review.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Predicted stars, 1 to 5.
    pub stars: u8,
    /// Time of the model alone, on one thread.
    pub latency_milliseconds: f64,
}

/// One held-out review with every variant's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The review's id.
    pub review_id: String,
    /// The review's product category.
    pub product_category: String,
    /// The true stars.
    pub star_rating: u8,
    /// Length of the text that was rated, in characters.
    pub characters: usize,
    /// One answer per variant of the table.
    pub answers: Vec<Answer>,
}

/// A table of predictions.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The variants' names, in the order of the answers.
    pub variants: Vec<String>,
    /// The reviews, in the order of the review table.
    pub rows: Vec<Row>,
}

/// The columns before those of the variants.
const COLUMNS: [&str; 4] = ["review_id", "product_category", "star_rating", "characters"];

/// The committed table of all held-out reviews.
pub fn committed_table() -> PathBuf {
    example_directory().join("predictions.tsv")
}

/// Runs `star-rating predict`.
///
/// # Errors
/// When a model or the reviews are missing; says what to do.
pub fn run(args: &Args) -> Result<()> {
    threads::one_per_sum()?;
    let cache = args.cache.cache();
    let variants = load_all(args.variants.as_deref().unwrap_or(&committed_directory()))?;
    let reviews = reviews::load(&cache)?;
    let mut held_out = dataset::held_out(&reviews);
    held_out.truncate(args.reviews.unwrap_or(usize::MAX));
    ensure!(!held_out.is_empty(), "--reviews 0 leaves nothing to rate");
    let table = predict(&cache, &variants, &held_out)?;
    let path = args.output.clone().unwrap_or_else(committed_table);
    write_atomically(&path, |out| table.write(out))?;
    for (index, variant) in variants.iter().enumerate() {
        report(variant, &table, index, &held_out)?;
    }
    line(&format!(
        "{} reviews x {} variants: {}",
        table.rows.len(),
        variants.len(),
        path.display()
    ))
}

/// Rates `reviews` with every variant; answers that are in the cache are not computed again.
///
/// # Errors
/// When a model is missing; says what to do.
pub fn predict(cache: &Cache, variants: &[Variant], reviews: &[&Review]) -> Result<Table> {
    let mut rows: Vec<Row> = reviews
        .iter()
        .map(|review| Row {
            review_id: review.review_id.clone(),
            product_category: review.product_category.clone(),
            star_rating: review.star_rating,
            characters: review.text().chars().count(),
            answers: Vec::with_capacity(variants.len()),
        })
        .collect();
    for variant in variants {
        let answers = cached_answers(cache, variant, reviews)?;
        for row in &mut rows {
            let answer = answers
                .get(&row.review_id)
                .context("a review was not rated")?;
            row.answers.push(*answer);
        }
    }
    Ok(Table {
        variants: variants
            .iter()
            .map(|variant| variant.name.clone())
            .collect(),
        rows,
    })
}

/// The answers of one variant by review id.
fn cached_answers(
    cache: &Cache,
    variant: &Variant,
    reviews: &[&Review],
) -> Result<HashMap<String, Answer>> {
    cache.make_directory("predictions")?;
    let path = cache.path(&format!(
        "predictions/{}-{}.tsv",
        variant.name,
        fingerprint(variant)?
    ));
    let mut answers = read_answers(&path)?;
    if reviews
        .iter()
        .all(|review| answers.contains_key(&review.review_id))
    {
        return Ok(answers);
    }
    let model = Model::load(cache, variant)?;
    threads::compute_alone()?;
    let progress = Progress::start(
        &format!("predict {}", variant.name),
        reviews.len() as u64,
        Unit::Items,
    );
    let mut rows = Vec::with_capacity(reviews.len());
    for review in reviews {
        let answer = match answers.get(&review.review_id) {
            Some(answer) => *answer,
            None => rate(&model, review)?,
        };
        answers.insert(review.review_id.clone(), answer);
        rows.push(Row {
            review_id: review.review_id.clone(),
            product_category: review.product_category.clone(),
            star_rating: review.star_rating,
            characters: review.text().chars().count(),
            answers: vec![answer],
        });
        progress.advance(1);
    }
    progress.finish();
    let table = Table {
        variants: vec![variant.name.clone()],
        rows,
    };
    write_atomically(&path, |out| table.write(out))?;
    Ok(answers)
}

/// The answers kept in `path`: none when there is no such file.
fn read_answers(path: &Path) -> Result<HashMap<String, Answer>> {
    let Ok(text) = fs::read(path) else {
        return Ok(HashMap::new());
    };
    let table = Table::read(text.as_slice())
        .with_context(|| format!("{} is damaged: delete it", path.display()))?;
    Ok(table
        .rows
        .into_iter()
        .filter_map(|row| Some((row.review_id, *row.answers.first()?)))
        .collect())
}

fn rate(model: &Model, review: &Review) -> Result<Answer> {
    let text = review.text();
    let watch = Stopwatch::start();
    let prediction = model.predict(&text)?;
    Ok(Answer {
        stars: prediction.stars(),
        latency_milliseconds: watch.milliseconds(),
    })
}

/// Changes whenever the variant would answer differently, and with the columns of the table.
fn fingerprint(variant: &Variant) -> Result<String> {
    let head = fs::read(&variant.head).with_context(|| {
        format!(
            "no head in {}: make it with `star-rating train --variant FILE`",
            variant.head.display()
        )
    })?;
    let mut hasher = Sha256::new();
    hasher.update(format!(
        "{} {} {} {} {}",
        COLUMNS.join(" "),
        variant.encoder,
        variant.layers,
        variant.pooling.name(),
        variant.max_length
    ));
    hasher.update(head);
    Ok(hexadecimal(&hasher.finalize()[..6]))
}

fn report(variant: &Variant, table: &Table, index: usize, reviews: &[&Review]) -> Result<()> {
    let predicted: Vec<u8> = table
        .rows
        .iter()
        .map(|row| row.answers[index].stars)
        .collect();
    let mut latencies: Vec<f64> = table
        .rows
        .iter()
        .map(|row| row.answers[index].latency_milliseconds)
        .collect();
    let (mean, _) = mean_and_error(latencies.iter().copied());
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
    line(&format!(
        "{}: latency mean {mean:.1} ms, median {:.1} ms, 99th percentile {:.1} ms",
        variant.name,
        at(0.5),
        at(0.99)
    ))?;
    for row in Evaluation::new(reviews, &predicted).table() {
        line(&row)?;
    }
    line("")
}

impl Table {
    /// Writes the table: `review_id`, `product_category`, `star_rating`, `characters`, then per variant its stars
    /// in the column `NAME` and its latency in milliseconds in the column `NAME_ms`.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        write!(out, "{}", COLUMNS.join("\t"))?;
        for variant in &self.variants {
            write!(out, "\t{variant}\t{variant}_ms")?;
        }
        writeln!(out)?;
        for row in &self.rows {
            write!(
                out,
                "{}\t{}\t{}\t{}",
                row.review_id, row.product_category, row.star_rating, row.characters
            )?;
            for answer in &row.answers {
                write!(
                    out,
                    "\t{}\t{:.1}",
                    answer.stars, answer.latency_milliseconds
                )?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// When a line is not as expected, with its number.
    pub fn read(input: impl BufRead) -> Result<Self> {
        let mut lines = input.lines();
        let header = lines.next().context("the table is empty")??;
        let columns: Vec<&str> = header.split('\t').collect();
        ensure!(
            columns.starts_with(&COLUMNS) && columns.len().is_multiple_of(2),
            "line 1: expected {}, then two columns per variant",
            COLUMNS.join(", ")
        );
        let variants: Vec<String> = columns[COLUMNS.len()..]
            .iter()
            .step_by(2)
            .map(|name| (*name).to_owned())
            .collect();
        let rows = lines
            .enumerate()
            .map(|(index, line)| {
                Row::parse(&line?, variants.len()).with_context(|| format!("line {}", index + 2))
            })
            .collect::<Result<_>>()?;
        Ok(Self { variants, rows })
    }

    /// Reads a table from a file.
    ///
    /// # Errors
    /// When it is missing or damaged; says what to do.
    pub fn load(path: &Path) -> Result<Self> {
        let attempt = || Self::read(std::io::BufReader::new(fs::File::open(path)?));
        attempt().with_context(|| {
            format!(
                "cannot read the predictions {}: make them with `star-rating predict`",
                path.display()
            )
        })
    }
}

impl Row {
    fn parse(line: &str, variants: usize) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(
            fields.len() == COLUMNS.len() + 2 * variants,
            "expected {} columns, found {}",
            COLUMNS.len() + 2 * variants,
            fields.len()
        );
        let stars = |field: &str| -> Result<u8> {
            field
                .parse()
                .ok()
                .filter(|stars| (1..=5).contains(stars))
                .with_context(|| format!("expected 1 to 5 stars, found {field:?}"))
        };
        let answers = fields[COLUMNS.len()..]
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[predicted, latency]| {
                Ok(Answer {
                    stars: stars(predicted)?,
                    latency_milliseconds: latency
                        .parse()
                        .with_context(|| format!("expected milliseconds, found {latency:?}"))?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            review_id: fields[0].to_owned(),
            product_category: fields[1].to_owned(),
            star_rating: stars(fields[2])?,
            characters: fields[3].parse().with_context(|| {
                format!("expected a number of characters, found {:?}", fields[3])
            })?,
            answers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_writing_and_reading() {
        let table = Table {
            variants: vec!["a".to_owned(), "b".to_owned()],
            rows: vec![Row {
                review_id: "WC1".to_owned(),
                product_category: "Tops".to_owned(),
                star_rating: 4,
                characters: 120,
                answers: vec![
                    Answer {
                        stars: 5,
                        latency_milliseconds: 12.5,
                    },
                    Answer {
                        stars: 4,
                        latency_milliseconds: 3.0,
                    },
                ],
            }],
        };
        let mut bytes = Vec::new();
        table.write(&mut bytes).unwrap();
        assert_eq!(Table::read(bytes.as_slice()).unwrap(), table);
    }

    #[test]
    fn damage_is_reported_with_its_line() {
        for (text, expected) in [
            ("", "empty"),
            ("id\tstars\n", "line 1"),
            (
                "review_id\tproduct_category\tstar_rating\tcharacters\ta\ta_ms\nWC1\tTops\t4\t9\t5\n",
                "line 2",
            ),
            (
                "review_id\tproduct_category\tstar_rating\tcharacters\ta\ta_ms\nWC1\tTops\t4\t9\t6\t1.0\n",
                "1 to 5 stars",
            ),
            (
                "review_id\tproduct_category\tstar_rating\tcharacters\ta\ta_ms\nWC1\tTops\t4\tlong\t5\t1.0\n",
                "a number of characters",
            ),
        ] {
            let message = format!("{:#}", Table::read(text.as_bytes()).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }
}
