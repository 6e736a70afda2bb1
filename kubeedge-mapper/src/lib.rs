//! kubeedge-mapper
