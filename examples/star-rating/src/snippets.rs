//! Reads the electronics and movie sentences of Hutto and Gilbert (ICWSM 2014).
//!
//! Each sentence carries the mean of 20 people's valence ratings, -4 to 4. Stars are DERIVED from it:
//! they are judgements of one sentence, not a shopper's own stars.

use anyhow::{Context, Result, ensure};

use crate::markup::plain_text;
use crate::reviews::Review;

/// Which of the two files is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Sentences of Hu and Liu's Amazon reviews.
    Electronics,
    /// Sentences of Rotten Tomatoes reviews.
    Movies,
}

impl Source {
    /// The file's name in the archive.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Electronics => "amazonReviewSnippets_GroundTruth.txt",
            Self::Movies => "movieReviewSnippets_GroundTruth.txt",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Electronics => "VA",
            Self::Movies => "VM",
        }
    }

    fn category(self) -> &'static str {
        match self {
            Self::Electronics => "Electronics",
            Self::Movies => "Movies",
        }
    }
}

/// Stars from a mean valence in -4..4, cut at -1.8, -0.5, 0.5 and 1.8.
///
/// The cuts are symmetric: a valence on a cut goes to the outer star.
pub fn stars(valence: f64) -> u8 {
    match valence {
        v if v <= -1.8 => 1,
        v if v <= -0.5 => 2,
        v if v < 0.5 => 3,
        v if v < 1.8 => 4,
        _ => 5,
    }
}

/// The sentences in `bytes` (lines of `id<TAB>valence<TAB>sentence`).
///
/// # Errors
/// When a line is not as expected, with its number.
pub fn read(source: Source, bytes: &[u8]) -> Result<Vec<Review>> {
    let text = std::str::from_utf8(bytes).context("the file is not UTF-8")?;
    text.lines()
        .enumerate()
        .map(|(index, line)| convert(source, line).with_context(|| format!("line {}", index + 1)))
        .collect()
}

fn convert(source: Source, line: &str) -> Result<Review> {
    let mut fields = line.splitn(3, '\t');
    let (Some(id), Some(valence), Some(sentence)) = (fields.next(), fields.next(), fields.next())
    else {
        anyhow::bail!("expected id, valence and sentence, separated by tabs");
    };
    let valence: f64 = valence
        .parse()
        .with_context(|| format!("valence {valence:?} is not a number"))?;
    ensure!(
        (-4.0..=4.0).contains(&valence),
        "valence {valence} is not within -4 to 4"
    );
    let body = plain_text(sentence);
    ensure!(!body.is_empty(), "the sentence is empty");
    let document = id.split('_').next().unwrap_or(id);
    Ok(Review {
        review_id: format!("{}{id}", source.prefix()),
        product_id: format!("{}-doc{document}", source.prefix()),
        product_parent: "Snippets".to_owned(),
        product_title: source.category().to_owned(),
        product_category: source.category().to_owned(),
        star_rating: stars(valence),
        helpful_votes: 0,
        review_headline: String::new(),
        review_body: body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valence_becomes_stars() {
        let cases = [
            (-4.0, 1),
            (-1.8, 1),
            (-1.79, 2),
            (-0.5, 2),
            (-0.49, 3),
            (0.49, 3),
            (0.5, 4),
            (1.79, 4),
            (1.8, 5),
            (4.0, 5),
        ];
        for (valence, expected) in cases {
            assert_eq!(stars(valence), expected, "{valence}");
        }
    }

    #[test]
    fn a_line_becomes_a_review() {
        let reviews = read(
            Source::Electronics,
            b"65_2\t0.2\tit &amp; its  display.\r\n",
        )
        .unwrap();
        assert_eq!(reviews.len(), 1);
        assert_eq!(reviews[0].review_id, "VA65_2");
        assert_eq!(reviews[0].product_id, "VA-doc65");
        assert_eq!(reviews[0].review_body, "it & its display.");
        assert_eq!(reviews[0].star_rating, 3);
    }

    #[test]
    fn bad_lines_are_reported_with_their_number() {
        for (bytes, expected) in [
            (&b"1\t2.0\tfine\n2\tx\tbad\n"[..], "line 2"),
            (b"1\t2.0\n", "separated by tabs"),
            (b"1\t9\tsentence\n", "-4 to 4"),
            (b"1\t1\t \n", "empty"),
            (b"\xff\xfe", "UTF-8"),
        ] {
            let message = format!("{:#}", read(Source::Movies, bytes).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }
}
