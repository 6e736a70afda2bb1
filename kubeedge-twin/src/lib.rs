//! kubeedge-twin
