module obol.test/cluster/probe

go 1.26.0
