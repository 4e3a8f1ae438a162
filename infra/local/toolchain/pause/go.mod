module adk-gke-sandbox.local/toolchain/pause
go 1.26.0
