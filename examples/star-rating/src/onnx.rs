//! Reads the weights out of an ONNX file and gives them the names of Hugging Face's BERT.
//!
//! Not an ONNX runtime: only the initialisers are read, and of the graph only as much as tells which
//! matrix belongs to which bias. An exporter keeps the names of biases and embeddings but renames
//! the matrices of `MatMul` (and stores them transposed), so a matrix is named after the bias that
//! is added to its product.
//!
//! Field numbers are those of `onnx.proto3`: `ModelProto.graph` = 7; `GraphProto.node` = 1,
//! `.initializer` = 5; `NodeProto.input` = 1, `.output` = 2, `.op_type` = 4; `TensorProto.dims` = 1,
//! `.data_type` = 2, `.name` = 8, `.raw_data` = 9.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};

/// `TensorProto.DataType.FLOAT`.
const FLOAT: u64 = 1;

/// The weights in the ONNX file `bytes`, named without the exporter's prefix
/// (`embeddings.…`, `encoder.layer.N.…`), matrices as `[out, in]`.
///
/// # Errors
/// When the bytes are not such a file.
pub fn weights(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let graph = Message::new(bytes)
        .bytes_field(7)?
        .context("not an ONNX model: it has no graph")?;
    let mut initialisers = HashMap::new();
    let mut nodes = Vec::new();
    for field in Message::new(graph) {
        match field? {
            (5, Value::Bytes(tensor)) => {
                let (name, tensor) = initialiser(tensor)?;
                initialisers.insert(name, tensor);
            }
            (1, Value::Bytes(node)) => nodes.push(Node::parse(node)?),
            _ => {}
        }
    }
    let matrices = name_matrices(&nodes, &initialisers);
    let mut weights = HashMap::new();
    for (name, tensor) in initialisers {
        if let Some(position) = name.find("embeddings.").or_else(|| name.find("encoder.")) {
            weights.insert(name[position..].to_owned(), tensor);
        } else if let Some(bias) = matrices.get(&name) {
            weights.insert(bias.replace(".bias", ".weight"), tensor.t()?.contiguous()?);
        } else {
            bail!("the initialiser {name:?} belongs to no layer of BERT");
        }
    }
    Ok(weights)
}

/// For each matrix of a `MatMul`, the short name of the bias added to its product.
fn name_matrices(
    nodes: &[Node],
    initialisers: &HashMap<String, Tensor>,
) -> HashMap<String, String> {
    let mut matrix_of_product = HashMap::new();
    for node in nodes.iter().filter(|node| node.operator == "MatMul") {
        if let (Some(matrix), Some(product)) = (
            node.inputs
                .iter()
                .find(|input| initialisers.contains_key(*input)),
            node.outputs.first(),
        ) {
            matrix_of_product.insert(product.clone(), matrix.clone());
        }
    }
    let mut names = HashMap::new();
    for node in nodes.iter().filter(|node| node.operator == "Add") {
        let matrix = node
            .inputs
            .iter()
            .find_map(|input| matrix_of_product.get(input));
        let bias = node
            .inputs
            .iter()
            .find(|input| initialisers.contains_key(*input));
        if let (Some(matrix), Some(bias)) = (matrix, bias)
            && let Some(position) = bias.find("encoder.")
        {
            names.insert(matrix.clone(), bias[position..].to_owned());
        }
    }
    names
}

#[derive(Debug, Default)]
struct Node {
    inputs: Vec<String>,
    outputs: Vec<String>,
    operator: String,
}

impl Node {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut node = Self::default();
        for field in Message::new(bytes) {
            match field? {
                (1, Value::Bytes(name)) => node.inputs.push(text(name)?),
                (2, Value::Bytes(name)) => node.outputs.push(text(name)?),
                (4, Value::Bytes(name)) => node.operator = text(name)?,
                _ => {}
            }
        }
        Ok(node)
    }
}

fn initialiser(bytes: &[u8]) -> Result<(String, Tensor)> {
    let (mut name, mut dimensions, mut data_type, mut raw) = (String::new(), Vec::new(), 0, None);
    for field in Message::new(bytes) {
        match field? {
            (1, Value::Number(dimension)) => dimensions.push(usize::try_from(dimension)?),
            (1, Value::Bytes(packed)) => {
                let mut rest = Message::new(packed);
                while !rest.bytes.is_empty() {
                    dimensions.push(usize::try_from(rest.varint()?)?);
                }
            }
            (2, Value::Number(number)) => data_type = number,
            (8, Value::Bytes(bytes)) => name = text(bytes)?,
            (9, Value::Bytes(bytes)) => raw = Some(bytes),
            _ => {}
        }
    }
    ensure!(
        data_type == FLOAT,
        "the initialiser {name:?} is not of 32-bit floats"
    );
    let raw = raw.with_context(|| format!("the initialiser {name:?} has no raw data"))?;
    let count = dimensions
        .iter()
        .try_fold(1usize, |product, dimension| product.checked_mul(*dimension));
    ensure!(
        count.and_then(|count| count.checked_mul(4)) == Some(raw.len()),
        "the initialiser {name:?} has {} bytes for the shape {dimensions:?}",
        raw.len()
    );
    let values: Vec<f32> = raw
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    Ok((name, Tensor::from_vec(values, dimensions, &Device::Cpu)?))
}

fn text(bytes: &[u8]) -> Result<String> {
    Ok(std::str::from_utf8(bytes)
        .context("a name is not UTF-8")?
        .to_owned())
}

/// One field's value in Protocol Buffers' wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of one message, in order.
#[derive(Debug)]
struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn bytes_field(&mut self, number: u64) -> Result<Option<&'a [u8]>> {
        for field in self {
            if let (found, Value::Bytes(bytes)) = field?
                && found == number
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self
                .bytes
                .split_first()
                .context("the file ends in a number")?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a number is longer than 64 bits")
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .context("the file ends in a field: is it complete?")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            wire_type => bail!("unknown wire type {wire_type}: not an ONNX file?"),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.bytes = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(content);
        out
    }

    fn tensor(name: &str, dimensions: &[u8], values: &[f32]) -> Vec<u8> {
        let mut out = Vec::new();
        for dimension in dimensions {
            out.extend([1 << 3, *dimension]);
        }
        out.extend([2 << 3, 1]);
        out.extend(bytes_field(8, name.as_bytes()));
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        out.extend(bytes_field(9, &raw));
        bytes_field(5, &out)
    }

    fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for input in inputs {
            out.extend(bytes_field(1, input.as_bytes()));
        }
        out.extend(bytes_field(2, output.as_bytes()));
        out.extend(bytes_field(4, operator.as_bytes()));
        bytes_field(1, &out)
    }

    fn tiny_model() -> Vec<u8> {
        let graph = [
            node("MatMul", &["x", "onnx::MatMul_1"], "product"),
            node(
                "Add",
                &["m.encoder.layer.0.output.dense.bias", "product"],
                "y",
            ),
            tensor("onnx::MatMul_1", &[3, 2], &[1., 2., 3., 4., 5., 6.]),
            tensor("m.encoder.layer.0.output.dense.bias", &[2], &[0.5, -0.5]),
            tensor(
                "m.embeddings.word_embeddings.weight",
                &[1, 3],
                &[7., 8., 9.],
            ),
        ]
        .concat();
        bytes_field(7, &graph)
    }

    #[test]
    fn matrices_are_named_after_their_bias_and_transposed() {
        let weights = weights(&tiny_model()).unwrap();
        assert_eq!(weights.len(), 3);
        let matrix = &weights["encoder.layer.0.output.dense.weight"];
        assert_eq!(
            matrix.to_vec2::<f32>().unwrap(),
            [[1., 3., 5.], [2., 4., 6.]]
        );
        let words = &weights["embeddings.word_embeddings.weight"];
        assert_eq!(words.to_vec2::<f32>().unwrap(), [[7., 8., 9.]]);
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let model = tiny_model();
        for length in 0..model.len() {
            assert!(weights(&model[..length]).is_err(), "cut at {length}");
        }
        assert!(weights(b"PK\x03\x04 not onnx").is_err());
    }
}
