"""The audit log. Rows are inserted unsealed in the transaction of the change (D1); sealing them is another process's work."""
