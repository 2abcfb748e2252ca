//! What rows look like.

use super::*;

#[test]
fn csv_has_a_header_quotes_what_needs_it_and_a_column_for_each_feature() {
    let (text, _) = exported(&two(), &Selection::default(), Format::Csv);
    let (header, rows) = text.split_once('\n').unwrap();
    assert_eq!(
        header,
        "decision_id,at,experiment,epoch,policy_version,allocation_version,arm,arm_id,propensity,reason,unit,instead_of,ending,status,\
         latency_micros,prediction,reward,rewards,on_failure,default,label,probabilities,context,context.category,context.length,context.prime"
    );
    assert!(
        rows.contains(
            ",1.0,1,,,,\"{\"\"a\"\":0.4,\"\"b\"\":0.6}\",,\"a \"\"quoted\"\", word\n\",120.0,true\n"
        ),
        "{rows}"
    );
    assert!(rows.contains(",,plain,3.5,\n"), "{rows}");
    assert!(rows.contains("\"\"b\"\":0.7}\",,,,\n"), "{rows}");
    assert_eq!(text.matches("\nE").count(), 4);
}

/// The features of a policy that is not in the journal any more are together in `context`, and names come from the lines.
#[test]
fn decisions_outlive_their_policies() {
    let whole = two().contents().remove(0);
    let text = std::str::from_utf8(&whole).unwrap();
    let (start, _) = text.match_indices("{\"type\":\"decision\"").next().unwrap();
    let storage = MemoryStorage::default();
    storage.put(1, &whole[start..]);
    let rows = objects(&storage, &Selection::default());
    let names: Vec<_> = rows
        .iter()
        .map(|row| (&row["experiment"], &row["arm"]))
        .collect();
    assert_eq!(names[0], (&json!("reviews"), &json!("a")));
    assert_eq!(names[2], (&json!("stars"), &json!("b")));
    assert_eq!(rows[0]["reward"], 1.0);
    assert_eq!(rows[2]["probabilities"], Value::Null);
    let (text, summary) = exported(&storage, &Selection::default(), Format::Csv);
    assert!(
        text.contains(",\"{\"\"category\"\":\"\"plain\"\",\"\"length\"\":3.5}\"\n"),
        "{text}"
    );
    assert_eq!(summary.unruled, 3);
    let only = Selection::of(vec![name("stars")]);
    assert_eq!(objects(&storage, &only).len(), 2);
}

#[test]
fn dsjson_has_cost_probability_and_actions_of_what_can_be_learned_from() {
    let (text, summary) = exported(&two(), &Selection::default(), Format::Dsjson);
    assert_eq!((summary.rows, summary.left_out), (3, 1));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = &lines[0];
    assert_eq!(first["_label_cost"], -1.0);
    assert_eq!(first["_label_probability"], 0.4);
    assert_eq!(
        (&first["_label_Action"], &first["_labelIndex"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&first["a"], &first["p"]),
        (&json!([1, 2]), &json!([0.4, 0.6]))
    );
    assert_eq!(first["Timestamp"], "2026-11-24T06:00:01.000Z");
    assert_eq!(
        first["c"],
        json!({
            "Context": {"category": "a \"quoted\", word\n", "length": 120.0, "prime": true},
            "_multi": [{"Arm": {"id": "a"}}, {"Arm": {"id": "b"}}],
        })
    );
    assert!(
        text.lines()
            .nth(1)
            .unwrap()
            .starts_with("{\"_label_cost\":0.0,")
    );
    // The goal is to minimize, and the second arm was chosen.
    let last = &lines[2];
    assert_eq!(last["_label_cost"], 2.5);
    assert_eq!(last["_label_Action"], 2);
    assert_eq!(
        (&last["a"], &last["p"]),
        (&json!([2, 1]), &json!([0.7, 0.3]))
    );
}

#[test]
fn contexts_of_any_rule_find_their_columns() {
    let mut shape = Shape::default();
    shape.learn(&features());
    let mut places = shape::Places::new(&shape);
    let other = Context {
        names: Arc::from(["prime".into(), "category".into()]),
        values: Box::new([Found::Boolean(false), Found::Text("x".into())]),
    };
    let values: Vec<_> = places.values(Some(&other)).cloned().collect();
    assert_eq!(
        values,
        [
            Found::Text("x".into()),
            Found::Missing,
            Found::Boolean(false)
        ]
    );
    assert_eq!(
        places
            .values(None)
            .filter(|value| **value == Found::Missing)
            .count(),
        3
    );
    assert!(places.lacks("colour") && !places.lacks("prime"));
}
