//! What an edge host does with requests beside passing them on.

mod answers;
mod fields;
