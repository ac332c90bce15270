//! What the fuzz targets reach of this crate. Exists only under `--cfg fuzzing`.

use crate::{
    OfferFile,
    edit::{OFFER_HEAD, edit, fresh, head_of},
    parse::decode_offer,
    value::Value,
};

/// What a file says, whether or not it keeps the offer's rules.
pub fn read(text: &str) -> Option<OfferFile> {
    decode_offer(text).ok().map(|(_, file)| file)
}

/// A file written anew.
pub fn write(file: &OfferFile) -> Option<String> {
    Some(fresh(OFFER_HEAD, &Value::of(file).ok()?))
}

/// An existing text made to say `wanted`: edited in place, or written anew below its own head.
pub fn rewrite(text: &str, wanted: &OfferFile) -> Option<(Option<String>, String)> {
    let (base, value) = (Value::of(&read(text)?).ok()?, Value::of(wanted).ok()?);
    Some((edit(text, &base, &value), fresh(head_of(text), &value)))
}
