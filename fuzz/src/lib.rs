//! What the fuzz targets share: how an input says how it is to be cut into pieces, and second, simpler
//! readers of the protocols to hold the real ones against. Written from the description of the protocols,
//! slow and plain. Nothing here is part of lockd.

pub mod made_json;
pub mod naive_json;
pub mod naive_text;
pub mod pieces;
pub mod reading;
pub mod text_stream;
