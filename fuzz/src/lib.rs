//! What the fuzz targets share: how an input says where a stream is cut, and second, simpler
//! readers of the protocols to compare the real ones with. The simple readers are slow and plain,
//! and written from `docs/protocol.md`. Nothing here is part of lockd.

pub mod made_json;
pub mod naive_json;
pub mod naive_text;
pub mod pieces;
pub mod reading;
pub mod text_stream;
