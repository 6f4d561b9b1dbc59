module go-budget

go 1.24
