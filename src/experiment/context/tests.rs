use serde_json::json;

use super::*;

const PLAIN: Scale = Scale {
    center: 0.0,
    scale: 1.0,
    log: false,
    missing: 0.0,
};

fn rule() -> ContextRule {
    let feature = |name: &str, encoding| Feature {
        name: name.into(),
        source: Source::Header(name.into()),
        encoding,
    };
    ContextRule::new(vec![
        feature(
            "length",
            Encoding::Length(Scale {
                center: 2.0,
                scale: 0.5,
                log: true,
                missing: 0.0,
            }),
        ),
        feature(
            "category",
            Encoding::OneHot(vec!["clothing".into(), "movies".into()]),
        ),
        feature("prime", Encoding::Boolean),
        feature("city", Encoding::Hashed(4)),
        feature("price", Encoding::Number(PLAIN)),
    ])
}

fn encoded(rule: &ContextRule, context: &Context) -> Vec<f64> {
    let mut encoded = vec![7.0; 3];
    rule.encode(context, &mut encoded);
    encoded
}

#[test]
fn values_have_their_places() {
    let rule = rule();
    assert_eq!(rule.dimension(), 1 + 1 + 3 + 1 + 4 + 1);
    assert_eq!(rule.columns().len(), rule.dimension());
    let context = rule.context(
        vec![
            Value::Number(libm::exp(3.0) - 1.0),
            Value::Text("movies".into()),
            Value::Boolean(true),
            Value::Text("Ulm".into()),
            Value::Number(-2.5),
        ]
        .into(),
    );
    let vector = encoded(&rule, &context);
    assert!((vector[1] - 2.0).abs() < 1e-12);
    assert_eq!(&vector[2..6], [0.0, 1.0, 0.0, 1.0]);
    // Golden: a place is never moved.
    assert_eq!(&vector[6..10], [0.0, 0.0, 1.0, 0.0]);
    assert_eq!((vector[0], vector[10]), (1.0, -2.5));
}

#[test]
fn missing_and_unseen_values_are_defined() {
    let rule = rule();
    let nothing = encoded(&rule, &rule.nothing());
    assert_eq!(nothing[1], -4.0);
    assert!(nothing[2..].iter().all(|number| *number == 0.0));
    let mut context = rule.nothing();
    context.values[1] = Value::Text("unheard of".into());
    context.values[4] = Value::Number(1e300);
    let vector = encoded(&rule, &context);
    assert_eq!(&vector[2..5], [0.0, 0.0, 1.0]);
    assert_eq!(vector[10], MAX_MAGNITUDE);
}

#[test]
fn a_context_of_an_older_rule_is_read_by_name() {
    let rule = rule();
    let old = Context {
        names: Arc::from(["gone".into(), "prime".into(), "category".into()]),
        values: vec![
            Value::Number(9.0),
            Value::Boolean(true),
            Value::Text("clothing".into()),
        ]
        .into(),
    };
    let vector = encoded(&rule, &old);
    assert_eq!(&vector[2..6], [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(vector[10], 0.0);
}

#[test]
fn texts_and_json_are_read_by_kind() {
    let number = Encoding::Number(PLAIN);
    let length = Encoding::Length(PLAIN);
    let category = Encoding::Hashed(2);
    assert_eq!(number.read_text(" 2.5 "), Value::Number(2.5));
    for not_a_number in ["", "two", "NaN", "inf"] {
        assert_eq!(number.read_text(not_a_number), Value::Missing);
    }
    assert_eq!(length.read_text("grün"), Value::Number(4.0));
    assert_eq!(Encoding::Boolean.read_text("1"), Value::Boolean(true));
    assert_eq!(Encoding::Boolean.read_text("yes"), Value::Missing);
    assert_eq!(number.read_json(&json!(7)), Value::Number(7.0));
    assert_eq!(number.read_json(&json!("7")), Value::Number(7.0));
    assert_eq!(number.read_json(&json!([7])), Value::Missing);
    assert_eq!(length.read_json(&json!(7)), Value::Missing);
    assert_eq!(category.read_json(&json!(5)), Value::Text("5".into()));
    assert_eq!(category.read_json(&json!(null)), Value::Missing);
    let long = "é".repeat(100);
    let Value::Text(kept) = category.read_text(&long) else {
        panic!("not a text");
    };
    assert_eq!(kept.len(), MAX_TEXT);
}

#[test]
fn the_journal_reads_what_it_wrote() {
    let text = serde_json::to_string(&rule()).unwrap();
    let read: ContextRule = serde_json::from_str(&text).unwrap();
    assert_eq!(read, rule());
    assert!(text.starts_with(
        r#"[{"name":"length","source":{"header":"length"},"encoding":{"length":{"center":2.0,"#
    ));
}
