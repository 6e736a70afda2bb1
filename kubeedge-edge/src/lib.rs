//! kubeedge-edge
