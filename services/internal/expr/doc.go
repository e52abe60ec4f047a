// Package expr is the language that stands between {{ and }}: it implements flow.Language. Its grammar is that of expr-lang/expr, whose
// parser it uses; the evaluator is our own, because the library's machine can't keep the promises of flow documents:
// its integer arithmetic wraps and its mixed arithmetic rounds 64-bit integers, it knows no json.Number, gives null for a missing key, reads the
// clock, calls methods of Go values, and has no limit on steps.
//
// Names: input, steps.<id>.{output,port,error,status}, execution.{id,createdAt,trigger,labels,priority}, flow.{id,name,version}, item, index; `let x = …; …`; in
// predicates # (the element), .field, #index, #acc. null is nil.
//
// Numbers are exact or an error: integers overflow into an error, never into a float64; a number that neither int nor float64 can hold compares exactly, but arithmetic with it is an
// error. 6 / 3 is 2, 7 / 2 is 3.5; div(7, 2) is 3.
//
// A missing key, an index out of range and a member of null are errors that name them, unless the access is ?. , or stands left of ?? or in has().
//
// Times and durations live inside of an expression only: now() + duration("1h") becomes an RFC 3339 string in UTC (a duration: "1h30m") when it leaves. They have members: .year .month .day .hour .minute .second
// .weekday .yearDay .unix .unixMilli; .hours .minutes .seconds .milliseconds.
//
// Functions gives the table of functions with a line of documentation each. One evaluation may take MaxSteps steps and make MaxMemory bytes.
package expr
