//! What an edge host does with requests beside passing them on.

mod answers;
mod cors;
mod fields;
mod plain;
mod rewrites;
